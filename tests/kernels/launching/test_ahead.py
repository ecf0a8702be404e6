"""Every Triton kernel compiles for GPUs that are not here, within what those have."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import genselfdiff

KERNELS = Path(genselfdiff.__file__).parent / "kernels"
# Bytes a multiprocessor: those of capability 8.6 and 8.9, which are less than 8.0 has; of 9.0.
SHARED = {80: 100 * 1024, 90: 228 * 1024}
SHARED_OF_SYSTEM = 1024  # of a program
REGISTERS = 64 * 1024
FEWEST_WARPS = 8  # on a multiprocessor: two programs of four, or one that has registers for two
OLDEST_DRIVER = ("8.0", 7)  # versions of PTX and of machine code: those of CUDA 12.0
# Bytes a thread: what its registers do not hold.
STACK_LIMIT = {"torch.float32": 512, "torch.bfloat16": 0}
STACK_LIMIT_OF_TRITON_3_6 = {"torch.float32": 512, "torch.bfloat16": 64}  # which takes up to 56


def test_every_kernel_compiles_for_ampere_and_hopper() -> None:
    triton = pytest.importorskip("triton", reason="triton is not installed")
    stack_limit = (
        STACK_LIMIT_OF_TRITON_3_6 if triton.__version__.startswith("3.6.") else STACK_LIMIT
    )
    script = Path(__file__).with_name("compile_ahead.py")
    environment = {name: v for name, v in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    sources = "".join(path.read_text() for path in KERNELS.glob("*/triton*.py"))
    for capability in (80, 90):
        for dtype in ("torch.float32", "torch.bfloat16"):
            compiled = {
                one["kernel"]
                for one in found
                if one["capability"] == capability and one["dtype"] == dtype
            }
            assert compiled == set(re.findall(r"def (\w+_kernel)\(", sources))
    for one in found:
        assert (one["ptx"], one["format"]) == OLDEST_DRIVER, one
        assert one["target"].startswith(f"sm_{one['capability']}"), one
        assert one["stack"] <= stack_limit[one["dtype"]], one
        by_memory = SHARED[one["capability"]] // (one["shared"] + SHARED_OF_SYSTEM)
        by_registers = REGISTERS // (32 * one["warps"] * -(-one["registers"] // 8) * 8)
        assert min(by_memory, by_registers) * one["warps"] >= FEWEST_WARPS, one
        assert one["scratch"] == 0, one
