"""The steps of ``benchmarks/gpu_day.py``."""
