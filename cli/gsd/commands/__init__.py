"""One file for each command: its options, and what it calls.

What computes is imported when a command runs: help, completion and mistakes in a command line need
no torch, which takes seconds to load.
"""
