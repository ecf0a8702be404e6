"""Triton's interpreter in the place of a GPU: its kernels serve tensors of the CPU."""

import importlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch

from genselfdiff.kernels import backends

TRITON = {  # operation: function, in genselfdiff.kernels
    "add_noise": "add_noise.triton.add_noise",
    "group_norm_silu": "group_norm_silu.triton.forward",
    "group_norm_silu_backward": "group_norm_silu.triton.backward",
    "linear_attention": "linear_attention.triton.forward",
    "linear_attention_backward": "linear_attention.triton.backward",
    "multi_loss": "multi_loss.triton.multi_loss",
    "p2_loss": "p2_loss.triton.p2_loss",
}


def triton_function(operation: str) -> Any:
    """What launches the operation's Triton kernels from Python."""
    module, _, function = f"genselfdiff.kernels.{TRITON[operation]}".rpartition(".")
    return getattr(importlib.import_module(module), function)


@contextmanager
def interpreted_kernels() -> Iterator[None]:
    """Within this, operations on the CPU run the GPU's kernels, interpreted.

    The interpreter must have been asked for before Triton was imported.
    """
    with (
        mock.patch.dict(os.environ, GSD_KERNELS="triton"),
        mock.patch.object(backends, "triton_devices", {"cpu", "cuda"}),
        mended_interpreter(),
        torch.library._scoped_library("gsd", "FRAGMENT") as library,
    ):
        for operation in TRITON:
            with warnings.catch_warnings():  # it is known that there is a C++ kernel
                warnings.simplefilter("ignore")
                library.impl(operation, triton_function(operation), "CPU", allow_override=True)
        backends.decided.cache_clear()
        yield
    backends.decided.cache_clear()


@contextmanager
def mended_interpreter() -> Iterator[None]:
    """Within this, Triton's interpreter works with NumPy 2.5, and multiplies bfloat16."""
    from triton.runtime import interpreter

    patch_tensors = interpreter._patch_lang_tensor

    def patch_tensors_with_index(tensor: Any, scope: Any) -> None:
        # Scalars are arrays of one element. Triton 3.6 has NumPy make a number of such where a
        # kernel counts up to an argument, which NumPy 2.5 refuses.
        patch_tensors(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    with (
        mock.patch.object(interpreter, "_patch_lang_tensor", patch_tensors_with_index),
        mock.patch.object(interpreter.InterpreterBuilder, "create_dot", _dot_that_knows_bfloat16),
    ):
        yield


def _dot_that_knows_bfloat16(builder: Any, a: Any, b: Any, total: Any, *_: Any) -> Any:
    """Triton's interpreter holds bfloat16 as uint16, and would multiply these."""
    from triton.runtime.interpreter import TensorHandle

    def values(operand: Any) -> np.ndarray:
        if operand.data.dtype == np.uint16:
            return (operand.data.astype(np.uint32) << 16).view(np.float32)
        return operand.data

    return TensorHandle(np.matmul(values(a), values(b)) + total.data, total.dtype.scalar)
