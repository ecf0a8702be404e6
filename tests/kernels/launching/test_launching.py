"""A kernel that was compiled is launched again without asking Triton, and is the right one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def test_what_is_launched_again_is_what_triton_would_launch() -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    script = Path(__file__).with_name("launch_again.py")
    environment = {name: v for name, v in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script)],
        capture_output=True,
        text=True,
        check=False,
        env=environment | {"PYTHONPATH": str(BENCHMARKS)},
    )
    assert done.returncode == 0, done.stderr
    found = [line.rsplit(": ", 1) for line in done.stdout.splitlines()]
    compiled = ("first", "count of 64 bits", "width of 16", "width of 1", "bfloat16", "float64")
    asked = dict.fromkeys((*compiled, "another block"), "1") | {"unaligned": "2"}
    assert len(found) == 24
    for name, times in found:
        assert times == asked.get(name, "0"), name
