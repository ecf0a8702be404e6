"""Several threads launch kernels, on one GPU and on two."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[3]
NATIVE = ROOT / "tests" / "native"
VARIANTS, TARGETS = 9, 3  # of a kernel, in the table
CONSTANTS = f"""
namespace gsd::cuda {{
constexpr int kKernels = 2, kVariants = {VARIANTS}, kTargets = {TARGETS}, kNarrow = 64;
enum class Kernel {{ first, second }};
struct Tiles {{}};
constexpr Tiles kTiles[kVariants * kTargets] = {{}};
}}
"""


@pytest.mark.skipif(sys.platform != "linux", reason="kernels are launched on Linux alone")
def test_gpus_do_not_wait_for_each_other(tmp_path: Path) -> None:
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    for name in ("libcuda.so.1", "libtorch_cuda.so"):
        library = ["-x", "c", NATIVE / "fake_gpu.c", f"-Wl,-soname,{name}", "-o", tmp_path / name]
        subprocess.run([compiler, "-shared", "-fPIC", *library], check=True)
    (tmp_path / "gpu").mkdir()
    (tmp_path / "gpu" / "constants.h").write_text(CONSTANTS)
    rows = '{"kernel", 0, 4, 0, 3, 5},\n' * (2 * VARIANTS * TARGETS)
    (tmp_path / "gpu" / "images.inc").write_text(rows)
    (tmp_path / "images.bin").write_bytes(bytes(64))
    torch_folder = Path(torch.__file__).parent
    sources = [ROOT / "csrc" / "cuda" / f"{name}.cpp" for name in ("kernels", "driver")]
    command = [
        compiler,
        "-std=c++20",
        "-O2",
        "-pthread",
        *sources,
        NATIVE / "launch_from_threads.cpp",
    ]
    command += [f"-I{ROOT / 'csrc'}", f"-I{tmp_path}", f"-I{torch_folder / 'include'}"]
    command += ["-DTORCH_TARGET_VERSION=0x020a000000000000"]
    command += [f'-DGSD_GPU_IMAGES="{tmp_path / "images.bin"}"']
    command += [f"-L{torch_folder / 'lib'}", "-ltorch_cpu", "-lc10", "-ldl"]
    command += [f"-Wl,-rpath,{torch_folder / 'lib'}", "-o", tmp_path / "program"]
    subprocess.run(command, check=True)
    done = subprocess.run(
        [tmp_path / "program", tmp_path / "libtorch_cuda.so"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"LD_LIBRARY_PATH": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print("nanoseconds a launch:", done.stdout)
