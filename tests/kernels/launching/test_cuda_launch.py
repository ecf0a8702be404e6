"""What C++ launches on a GPU, seen by a driver without one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from genselfdiff.kernels import native

NATIVE = Path(__file__).parents[2] / "native"
COMPILE_KERNELS = Path(__file__).parents[3] / "csrc" / "cuda" / "compile_kernels.py"
build = native.build()
compiled_in = pytest.mark.skipif(
    build is None or not build.triton_version, reason="no GPU kernels are compiled in"
)


FAKES = {"libcuda.so.1": "libfake.so.1", "libtorch_cuda.so": "libtorch_fake.so"}


@pytest.fixture(scope="module")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A driver, torch's part of CUDA, and our library that asks for these and not for true ones."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    assert build is not None
    folder = tmp_path_factory.mktemp("fakes")
    library = build.library.read_bytes()
    for name, fake in FAKES.items():
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{fake}", "-o", folder / fake]
        subprocess.run([*command, NATIVE / "fake_gpu.c"], check=True)
        assert name.encode() in library
        library = library.replace(name.encode(), fake.encode())
    (folder / build.library.name).write_bytes(library)
    return [*(folder / fake for fake in FAKES.values()), folder / build.library.name]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Triton compiles, by launch."""
    triton = pytest.importorskip("triton", reason="triton is not installed")
    if build is None or build.triton_version != triton.__version__:
        pytest.skip("the library was built with another Triton")
    file = tmp_path_factory.mktemp("images") / "images"
    environment = {name: v for name, v in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, NATIVE / "expected_images.py", file, COMPILE_KERNELS]
    subprocess.run(command, check=True, env=environment | {"TRITON_DISABLE_LINE_INFO": "1"})
    return file


@compiled_in
@pytest.mark.parametrize("generation", [8, 9, 12])
def test_what_cpp_launches_is_what_triton_launches(
    fakes: list[Path], images: Path, generation: int
) -> None:
    script = NATIVE / "launch_on_fake_gpu.py"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script, *fakes, str(generation), images],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    old, old_named, refused, refused_named, captured, *cases, error = done.stdout.splitlines()
    assert old == "they need a compute capability of 8.0 or newer"
    assert refused == "the driver, of CUDA 12.4, refuses them (as the test wants it): update it"
    for why, named in ((old, old_named), (refused, refused_named)):
        assert named == (
            f"genselfdiff: the GPU kernels do not run here: {why}; a portable model file runs"
            " anyway"
        )
    assert captured.endswith("call the operation once before")
    norm = ["channel_moments_kernel", "merge_moments_kernel", "apply_kernel"]
    attention = ["image_moments_kernel", "merge_image_moments_kernel", "context_kernel"]
    attention += ["merge_context_kernel", "fold_kernel", "output_moments_kernel"]
    attention += ["merge_image_moments_kernel", "output_kernel"]
    one_dtype = [["group_norm_silu", *norm]] * 2 + [["linear_attention", *attention]]
    assert [case.split() for case in cases] == one_dtype * (6 if generation == 9 else 1)
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
        (
            "group_norm_silu",
            {2: torch.ones(16, device="meta")},
            "bias is on another kind .* not on cpu",
        ),
        (
            "group_norm_silu",
            {5: torch.zeros(1, 16, 2, 2, device="meta")},
            "residual is on another kind",
        ),
        (
            "linear_attention",
            {7: torch.ones(16, device="meta")},
            "out_norm_bias is on another kind",
        ),
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
