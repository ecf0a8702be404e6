"""Fixtures that run a test with every implementation and instruction set this machine has."""

import pytest

from genselfdiff.kernels import native

needs_native = pytest.mark.skipif(not native.available(), reason="no native kernels installed")


@pytest.fixture(params=["reference", pytest.param("cpp", marks=needs_native)])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Force one implementation."""
    monkeypatch.setenv("GSD_KERNELS", request.param)
    return str(request.param)


@pytest.fixture(params=["generic", "avx2", "avx512"])
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
