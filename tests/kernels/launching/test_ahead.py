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
SHARED_LIMIT = 99 * 1024  # bytes a block: that of capability 8.6 and 8.9; 8.0 and 9.0 have more
OLDEST_DRIVER = ("8.0", 7)  # versions of PTX and of machine code: those of CUDA 12.0
STACK_LIMIT = 512  # bytes a thread: what its registers do not hold


def test_every_kernel_compiles_for_ampere_and_hopper() -> None:
    pytest.importorskip("triton", reason="triton is not installed")
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
        assert one["shared"] <= SHARED_LIMIT, one
        assert one["stack"] <= STACK_LIMIT, one
        assert one["scratch"] == 0, one
