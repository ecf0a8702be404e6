"""Fixtures that run a test with every implementation and instruction set this machine has."""

from collections.abc import Callable, Mapping

import pytest
import torch

from genselfdiff.kernels import native

needs_native = pytest.mark.skipif(not native.available(), reason="no native kernels installed")


@pytest.fixture(params=["reference", pytest.param("cpp", marks=needs_native)])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Force one implementation."""
    monkeypatch.setenv("GSD_KERNELS", request.param)
    return str(request.param)


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


Results = Mapping[str, torch.Tensor]


@pytest.fixture
def assert_as_good_as_plain_torch() -> Callable[..., None]:
    """Compare named results of a kernel and of plain torch in the same precision with float64.

    A kernel's error is at most twice (`times`) that of plain torch, plus one unit in the last place
    of the largest value.
    """

    def check(ours: Results, plain: Results, exact: Results, times: float = 2.0) -> None:
        for name, truth in exact.items():
            assert truth.dtype == torch.float64
            error = (ours[name].double() - truth).abs().max()
            allowed = times * (plain[name].double() - truth).abs().max()
            allowed += torch.finfo(ours[name].dtype).eps * truth.abs().max()
            assert error <= allowed, name

    return check
