"""The native library, the choice of implementation, and what gsd info says of both."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from genselfdiff.errors import GsdError
from genselfdiff.info import describe, rebuild_command
from genselfdiff.kernels import OPERATIONS, add_noise, backends, native
from genselfdiff.kernels.backends import Operation
from gsd.commands.info import info

needs_native = pytest.mark.skipif(not native.available(), reason="no native kernels installed")

SCRIPTED = """
import sys, torch
torch.ops.load_library(sys.argv[1])

@torch.jit.script
def noisy(x, t, table):
    return torch.ops.gsd.add_noise(x, t, table, 1, 0)[0]

@torch.jit.script
def loss(x, t, table):
    return torch.ops.gsd.p2_loss(x, x + 2.0, t, table, True)[0]

x, t, table = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), torch.ones(1).double()
print(noisy(x, t, table).abs().sum().item(), loss(x, t, table).item())
print("genselfdiff" in sys.modules)
"""


def call() -> None:
    add_noise(torch.zeros(2, 3), torch.zeros(2).long(), torch.ones(1).double(), seed=0)


@needs_native
def test_the_library_alone_makes_the_operations_scriptable(tmp_path: Path) -> None:
    script = tmp_path / "only_torch.py"
    script.write_text(SCRIPTED)
    build = native.build()
    assert build is not None
    done = subprocess.run(
        [sys.executable, str(script), str(build.library)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0.0", "4.0", "False"]


@needs_native
def test_build_information_is_filled_in() -> None:
    build = native.build()
    assert build is not None
    assert build.library.is_file()
    assert build.compiler.split()[0] in ("GCC", "Clang")
    assert tuple(map(int, build.torch_version.split(".")[:2])) >= (2, 10)
    assert build.isas[0] == "generic"
    assert native.selected_isa() in build.isas
    assert ("avx2" in build.cpu_features) == (" avx2 " in Path("/proc/cpuinfo").read_text())


@needs_native
def test_info_tells_which_gpu_kernels_are_compiled_in() -> None:
    build = native.build()
    assert build is not None
    line = dict(describe())["compiled for gpu"]
    if not build.triton_version:
        assert line == "none for exported models: Triton was not installed when this was built"
        return
    assert line.startswith("forward group_norm_silu and linear_attention of an exported model")
    assert build.triton_version in line
    assert line.endswith("no GPU has run them yet")


@needs_native
def test_an_instruction_set_that_is_not_there_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GSD_CPU_ISA", "sse9")
    with pytest.raises(GsdError, match="GSD_CPU_ISA=sse9 is not available here; choose one of: "):
        call()
    arguments = (torch.zeros(2, 3), torch.zeros(2).long(), torch.ones(1).double(), 0, 0)
    with pytest.raises(RuntimeError, match="GSD_CPU_ISA=sse9 is not available here"):
        torch.ops.gsd.add_noise(*arguments)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("fast", "GSD_KERNELS=fast is unknown; choose one of: auto, reference, cpp, triton, cuda"),
        ("cuda", "add_noise has no cuda implementation, its GPU kernels are Triton's"),
    ],
)
def test_a_choice_that_cannot_run_says_why(
    monkeypatch: pytest.MonkeyPatch, choice: str, message: str
) -> None:
    monkeypatch.setenv("GSD_KERNELS", choice)
    with pytest.raises(GsdError, match=message):
        call()


def test_triton_is_refused_for_what_it_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSD_KERNELS", "triton")
    monkeypatch.setattr(backends, "_triton_installed", lambda: True)
    operation, cuda = OPERATIONS[0], torch.device("cuda")
    with pytest.raises(GsdError, match="runs on a CUDA GPU, not on cpu"):
        operation.backend(torch.device("cpu"), torch.float32)
    with pytest.raises(GsdError, match="does not take float64; use GSD_KERNELS=auto"):
        operation.backend(cuda, torch.float64)
    monkeypatch.setattr(backends, "_triton_installed", lambda: False)
    with pytest.raises(GsdError, match="triton is not installed"):
        operation.backend(cuda, torch.float32)


@needs_native
def test_cpp_is_refused_for_what_it_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSD_KERNELS", "cpp")
    operation = OPERATIONS[0]
    with pytest.raises(GsdError, match="does not take float64; use GSD_KERNELS=auto"):
        operation.backend(torch.device("cpu"), torch.float64)
    with pytest.raises(GsdError, match="runs on the cpu, not on cuda"):
        operation.backend(torch.device("cuda"), torch.float32)


def test_schemas_from_python_are_those_of_the_library(tmp_path: Path) -> None:
    """Each is written twice, in csrc/ops.cpp and for where that is not built."""
    code = """
import sys
if sys.argv[1] == "python": sys.modules["genselfdiff._native"] = None
import torch
from genselfdiff.kernels import OPERATIONS
for operation in OPERATIONS: print(getattr(torch.ops.gsd, operation.name).default._schema)
"""
    schemas = [
        subprocess.run(
            [sys.executable, "-c", code, kind], capture_output=True, text=True, check=True
        ).stdout
        for kind in ("library", "python")
    ]
    assert schemas[0] == schemas[1] != ""


def test_auto_takes_the_native_kernel_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GSD_KERNELS", raising=False)
    fast = "cpp" if native.available() else "reference"
    fast_on_gpu = "triton" if backends._triton_installed() else "reference"
    for operation in OPERATIONS:
        assert operation.backend(torch.device("cpu"), torch.float32) == fast
        assert operation.backend(torch.device("cpu"), torch.float64) == "reference"
        on_gpu = fast_on_gpu if operation.triton else "reference"
        assert operation.backend(torch.device("cuda"), torch.bfloat16) == on_gpu
        assert operation.backend(torch.device("cuda"), torch.float64) == "reference"


def test_reference_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSD_KERNELS", "reference")
    for operation in OPERATIONS:
        assert operation.backend(torch.device("cpu"), torch.float32) == "reference"


def test_without_the_library_everything_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_module", None)
    monkeypatch.setattr(native, "_problem", "for this test")
    monkeypatch.setenv("GSD_KERNELS", "cpp")
    with pytest.raises(GsdError, match="there are no native kernels"):
        call()
    monkeypatch.delenv("GSD_KERNELS")
    call()
    lines = describe()
    assert ("native kernels", "NO, slower plain torch is used: for this test") in lines
    assert lines[-1] == ("to rebuild", rebuild_command())
    monkeypatch.setenv("GSD_CPU_ISA", "avx2")
    with pytest.raises(GsdError, match="GSD_CPU_ISA=avx2: there are no native kernels"):
        native.selected_isa()


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(native, "_module", None)
    monkeypatch.setattr(native, "_problem", "for this test")
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    hint, command = describe()[-2:]
    assert hint[0] == command[0] == "to rebuild"
    assert hint[1].startswith("first install a C++ compiler")


def test_info_prints_versions_processor_and_operations() -> None:
    result = CliRunner().invoke(info)
    assert result.exit_code == 0
    assert torch.__version__ in result.output
    for word in (
        "genselfdiff",
        "python",
        "processor",
        "gpu",
        "native kernels",
        "add_noise",
        "conv",
    ):
        assert f"\n{word}" in f"\n{result.output}"


@needs_native
def test_info_names_the_library_that_exported_models_need() -> None:
    build = native.build()
    assert build is not None
    assert ("library", str(build.library)) in describe()


def test_plain_torch_by_choice_is_no_reason_to_rebuild() -> None:
    code = "from genselfdiff.info import describe; print(*describe(), sep='\\n')"
    told = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"GSD_KERNELS": "reference"},
    ).stdout
    assert "plain torch is used: GSD_KERNELS=reference asks for that" in told
    assert "('group_norm_silu', 'cpu: reference" in told
    assert "to rebuild" not in told


def test_info_survives_a_bad_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSD_KERNELS", "nonsense")
    result = CliRunner().invoke(info)
    assert result.exit_code == 0
    assert "GSD_KERNELS=nonsense is unknown" in result.output


@pytest.mark.parametrize("device", ["CPU", "CUDA", "MPS", "XPU"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_device_has_an_implementation(operation: Operation, device: str) -> None:
    has_kernel = torch._C._dispatch_has_computed_kernel_for_dispatch_key
    assert has_kernel(f"gsd::{operation.name}", device)
