"""What C++ launches on a GPU, seen by a driver without one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from genselfdiff.kernels import native

NATIVE = Path(__file__).parents[1] / "native"
build = native.build()
compiled_in = pytest.mark.skipif(
    build is None or not build.triton_version, reason="no GPU kernels are compiled in"
)


@compiled_in
@pytest.mark.parametrize("generation", [8, 9, 12])
def test_what_cpp_launches_is_what_triton_launches(tmp_path: Path, generation: int) -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    libraries = []
    for name in ("libcuda.so.1", "libtorch_cuda.so"):
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", tmp_path / name]
        subprocess.run([*command, NATIVE / "fake_gpu.c"], check=True)
        libraries.append(str(tmp_path / name))
    script = NATIVE / "launch_on_fake_gpu.py"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), *libraries, str(generation)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *cases, error = done.stdout.splitlines()
    norm = ["channel_moments_kernel", "merge_moments_kernel", "apply_kernel"]
    attention = ["channel_moments_kernel", "merge_moments_kernel", "context_kernel"]
    attention += ["merge_context_kernel", "fold_kernel", "output_moments_kernel"]
    attention += ["merge_moments_kernel", "output_kernel"]
    one_dtype = [["group_norm_silu", *norm]] * 2 + [["linear_attention", *attention]]
    assert [case.split() for case in cases] == one_dtype * (3 if generation == 9 else 1)
    assert error.endswith("genselfdiff: launching a kernel: as the test wants it")


@compiled_in
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_kernels_say_what_is_missing() -> None:
    kernel = torch.library.get_kernel("gsd::group_norm_silu", "CUDA")
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
    x = torch.zeros(1, 16, 2, 2)
    with pytest.raises(RuntimeError, match=r"lib(torch_)?cuda\.so(\.1)? does not load"):
        kernel.call_boxed(keys, x, torch.ones(16), torch.zeros(16), 4, None, None, 1e-5)


@compiled_in
@pytest.mark.parametrize(
    ("operation", "change", "message"),
    [
        ("group_norm_silu", {3: 3}, "3 groups do not divide 16 channels"),
        ("group_norm_silu", {1: torch.ones(3)}, "weight must have 16 elements"),
        ("group_norm_silu", {0: torch.zeros(1, 16, 2, 2).double()}, "takes x in float32, bfloat16"),
        ("group_norm_silu", {5: torch.zeros(1, 16, 2, 3)}, "residual must have the shape"),
        ("linear_attention", {8: 2}, "compiled for 4 heads of 32 features"),
        ("linear_attention", {3: torch.ones(16)}, "qkv_weight must have 6144 elements"),
    ],
)
def test_bad_arguments_are_named(operation: str, change: dict[int, object], message: str) -> None:
    x, c = torch.zeros(1, 16, 2, 2), torch.ones(16)
    arguments: list[object] = [x, c, c, 4, None, None, 1e-5]
    if operation == "linear_attention":
        qkv, out = torch.ones(384, 16, 1, 1), torch.ones(16, 128, 1, 1)
        arguments = [x, c, c, qkv, out, c, c, c, 4, 1e-5]
    for index, value in change.items():
        arguments[index] = value
    kernel = torch.library.get_kernel(f"gsd::{operation}", "CUDA")
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
    with pytest.raises(RuntimeError, match=message):
        kernel.call_boxed(keys, *arguments)
