"""Tell what machine this is, and the most that its device can do.

python benchmarks/gpu/environment.py [--device cuda]
"""

import argparse
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from contextlib import suppress

import torch
from timing import Timer, ceilings, tell

ASKED = (
    *("name", "driver_version", "memory.total", "memory.used", "clocks.sm", "clocks.mem"),
    *("clocks.max.sm", "temperature.gpu", "power.draw", "mig.mode.current"),
)
TOOLS = ("nvidia-smi", "nvcc", "compute-sanitizer", "c++", "cmake", "ninja")
PACKAGES = ("torch", "triton", "numpy", "pytest", "pytest-xdist", "pip", "pybind11")


def main() -> None:
    """Print the records."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    device = torch.device(options.device)
    tell(python=platform.python_version(), executable=sys.executable, cores=os.cpu_count())
    for name in PACKAGES:
        version = "not here"
        with suppress(importlib.metadata.PackageNotFoundError):
            version = importlib.metadata.version(name)
        tell(package=name, version=version)
    for tool in TOOLS:
        tell(tool=tool, path=shutil.which(tool) or "not here")
    query = ("nvidia-smi", f"--query-gpu={','.join(ASKED)}", "--format=csv,noheader")
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=10)
        for name, value in zip(ASKED, done.stdout.strip().split(", "), strict=False):
            tell(nvidia_smi=name, value=value)
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        tell(
            gpu=properties.name,
            capability=f"{properties.major}.{properties.minor}",
            multiprocessors=properties.multi_processor_count,
            memory_gib=properties.total_memory / 2**30,
            cuda=torch.version.cuda,
        )
        most = ceilings(Timer(device, 0.5), copied=1 << 31, side=8192)
    else:
        most = ceilings(Timer(device, 0.01), copied=1 << 22, side=64)
    tell(most="copy, GB/s read and written", value=most.bandwidth / 1e9)
    tell(most="product in bfloat16, TFLOP/s", value=most.bfloat16_rate / 1e12)


if __name__ == "__main__":
    main()
