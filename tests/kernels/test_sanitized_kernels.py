"""The raw kernels under the address and undefined-behaviour sanitizers, without torch."""

import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
ISAS = {"generic": []}
if platform.machine() in ("x86_64", "AMD64"):
    ISAS |= {
        "avx2": ["-mavx2", "-mfma"],
        "avx512": AVX512,
        "avx512_bf16": [*AVX512, "-mavx512bf16"],
        "amx": [*AVX512, "-mavx512bf16", "-DGSD_EMULATED_TILES"],  # as few machines have them
    }
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "-g0"]


def test_no_kernel_leaves_its_buffers(tmp_path: Path) -> None:
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    common = [compiler, "-std=c++20", *SANITIZERS, f"-I{ROOT / 'csrc'}"]
    defines = [f"-DGSD_HAVE_{isa.upper()}=1" for isa in ISAS if isa != "generic"]
    probe = tmp_path / "probe.cpp"
    probe.write_text("int main() {}\n")
    if subprocess.run([*common, probe, "-o", tmp_path / "probe"], check=False).returncode:
        pytest.skip("the compiler has no sanitizers")

    def compile_object(job: tuple[Path, str, list[str]]) -> Path:
        source, name, flags = job
        target = tmp_path / f"{source.stem}_{name}.o"
        subprocess.run([*common, *flags, "-c", source, "-o", target], check=True)
        return target

    jobs = [
        (source, isa, [*flags, f"-DGSD_ISA={isa}"])
        for isa, flags in ISAS.items()
        for source in sorted((ROOT / "csrc" / "cpu" / "kernels").glob("*.cpp"))
    ]
    jobs.append((ROOT / "tests" / "native" / "kernels_driver.cpp", "driver", defines))
    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_object, jobs))
    driver = tmp_path / "driver"
    subprocess.run([*common, *objects, "-o", driver], check=True)
    done = subprocess.run([driver], capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[-1] for line in done.stdout.splitlines()] == list(ISAS)
