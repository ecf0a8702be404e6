"""Fixtures that run a test with every implementation and instruction set this machine has."""

import importlib
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from genselfdiff.kernels import backends, native

needs_native = pytest.mark.skipif(not native.available(), reason="no native kernels installed")

TRITON = {  # operation: function, in genselfdiff.kernels
    "add_noise": "add_noise.triton.add_noise",
    "group_norm_silu": "group_norm_silu.triton.forward",
    "group_norm_silu_backward": "group_norm_silu.triton.backward",
    "linear_attention": "linear_attention.triton.forward",
    "linear_attention_backward": "linear_attention.triton.backward",
    "multi_loss": "multi_loss.triton.multi_loss",
    "p2_loss": "p2_loss.triton.p2_loss",
}


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
def interpreted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The GPU's kernels serve the CPU, in Triton's interpreter."""
    pytest.importorskip("triton", reason="triton is not installed")
    monkeypatch.setenv("GSD_KERNELS", "triton")
    monkeypatch.setattr(backends, "triton_devices", {"cpu", "cuda"})
    monkeypatch.setattr(
        "triton.runtime.interpreter.InterpreterBuilder.create_dot", _dot_that_knows_bfloat16
    )
    with torch.library._scoped_library("gsd", "FRAGMENT") as library:
        for operation, path in TRITON.items():
            module, _, function = f"genselfdiff.kernels.{path}".rpartition(".")
            kernel = getattr(importlib.import_module(module), function)
            with warnings.catch_warnings():  # it is known that there is a C++ kernel
                warnings.simplefilter("ignore")
                library.impl(operation, kernel, "CPU", allow_override=True)
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


def _dot_that_knows_bfloat16(builder: Any, a: Any, b: Any, total: Any, *_: Any) -> Any:
    """Triton's interpreter holds bfloat16 as uint16, and would multiply these."""
    from triton.runtime.interpreter import TensorHandle

    def values(operand: Any) -> np.ndarray:
        if operand.data.dtype == np.uint16:
            return (operand.data.astype(np.uint32) << 16).view(np.float32)
        return operand.data

    return TensorHandle(np.matmul(values(a), values(b)) + total.data, total.dtype.scalar)
