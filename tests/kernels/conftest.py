"""Fixtures that run a test with every implementation and instruction set this machine has."""

from collections.abc import Iterator

import pytest
from interpreting import interpreted_kernels

from genselfdiff.kernels import backends, native

needs_native = pytest.mark.skipif(not native.available(), reason="no native kernels installed")


@pytest.fixture(autouse=True)
def decided_anew() -> Iterator[None]:
    """What runs depends on what tests put in the place of devices and libraries."""
    backends.decided.cache_clear()
    yield
    backends.decided.cache_clear()


@pytest.fixture(params=["reference", pytest.param("cpp", marks=needs_native), "triton"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Force one implementation."""
    monkeypatch.setenv("GSD_KERNELS", request.param)
    if request.param == "triton":
        request.getfixturevalue("interpreted")
    return str(request.param)


# For tests with too many elements for Triton's interpreter.
on_cpu_alone = pytest.mark.parametrize(
    "backend", ["reference", pytest.param("cpp", marks=needs_native)], indirect=True
)


@pytest.fixture
def interpreted() -> Iterator[None]:
    """The GPU's kernels serve the CPU, in Triton's interpreter."""
    pytest.importorskip("triton", reason="triton is not installed")
    with interpreted_kernels():
        yield


@pytest.fixture(params=["generic", "avx2", "avx512", "avx512_bf16", "amx"])
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Force the native kernels with one instruction set."""
    if not native.available():
        pytest.skip("no native kernels installed")
    monkeypatch.setenv("GSD_KERNELS", "cpp")
    monkeypatch.setenv("GSD_CPU_ISA", request.param)
    try:
        native.selected_isa()
    except ValueError as error:
        pytest.skip(str(error))
    return str(request.param)
