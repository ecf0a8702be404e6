"""The operation ``gsd::conv4x4``: torch's convolution, with a weight gradient of our own."""

from typing import Any

import torch

from genselfdiff.kernels import convolution_rules as rules
from genselfdiff.kernels.autograd import differentiable_once
from genselfdiff.kernels.backends import Operation
from genselfdiff.kernels.conv4x4 import reference

OPERATION = Operation("conv4x4", frozenset({torch.float32, torch.bfloat16}), triton=False)
WEIGHT_GRADIENT = Operation("conv4x4_weight_gradient", OPERATION.dtypes, triton=False)


def conv4x4(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, enlarge: bool
) -> torch.Tensor:
    """A convolution with a kernel of 4x4, stride 2 and padding 1, or the transpose of one.

    The native kernel is that of the weights' gradient, for which oneDNN takes two to four times as
    long as for the other directions on channels_last memory with AVX2. It gives the same bits for
    any number of threads. Everything else is torch's, and all where that was measured to be faster
    (``convolution_rules.py``).

    Args:
        x: (N, in, H, W), any floating dtype and memory format.
        weight: (out, in, 4, 4), or (in, out, 4, 4) to enlarge.
        bias: (out,), or None.
        enlarge: the transpose, which doubles the size instead of halving it.

    Returns:
        (N, out, H / 2, W / 2), or (N, out, 2 H, 2 W).

    Raises:
        RuntimeError: shapes do not fit.
        InputError: GSD_KERNELS or GSD_CPU_ISA asks for what cannot run.
    """
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return reference.conv4x4(x, weight, bias, enlarge)
    dtype, detour = x.dtype, False
    if x.device.type == "cpu":
        dtype = rules.computed_in(dtype)
        detour = not x.is_contiguous(memory_format=torch.channels_last)
        detour = detour or not rules.strided_pays(dtype)
    trained = torch.is_grad_enabled() and weight.requires_grad
    if not trained or WEIGHT_GRADIENT.backend(x.device, dtype, detour=detour) == "reference":
        return reference.conv4x4(x, weight, bias, enlarge)
    y: torch.Tensor = torch.ops.gsd.conv4x4(x.to(dtype), weight, bias, enlarge)
    return y


def _forward(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, enlarge: bool
) -> torch.Tensor:
    return reference.conv4x4(x, weight.to(x), None if bias is None else bias.to(x), enlarge)


def _gradient_shapes(small: torch.Tensor, large: torch.Tensor) -> torch.Tensor:
    dtype = torch.promote_types(large.dtype, torch.float32)
    gradient = large.new_empty((small.shape[1], large.shape[1], 4, 4), dtype=dtype)
    return gradient.contiguous(memory_format=torch.channels_last)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, weight, bias, ctx.enlarge = inputs
    ctx.save_for_backward(x, weight)
    ctx.bias_dtype = None if bias is None else bias.dtype


def _backward(ctx: Any, grad_y: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    grad_x = grad_weight = grad_bias = None
    with torch.no_grad():
        if ctx.needs_input_grad[0]:
            grad_x = reference.input_gradient(grad_y, x, weight.to(grad_y), ctx.enlarge)
        if ctx.needs_input_grad[1]:
            pair = (x, grad_y) if ctx.enlarge else (grad_y, x)
            grad_weight = torch.ops.gsd.conv4x4_weight_gradient(*pair).to(weight.dtype)
        if ctx.needs_input_grad[2]:
            grad_bias = grad_y.sum((0, 2, 3), dtype=torch.float32).to(ctx.bias_dtype)
    once = [
        None if grad is None else differentiable_once("conv4x4", grad, grad_y, x, weight)
        for grad in (grad_x, grad_weight, grad_bias)
    ]
    return *once, None


OPERATION.register(
    "(Tensor x, Tensor weight, Tensor? bias, bool enlarge) -> Tensor", _forward, _forward
)
WEIGHT_GRADIENT.register(
    "(Tensor small, Tensor large) -> Tensor", reference.weight_gradient, _gradient_shapes
)
OPERATION.register_autograd(_setup_context, _backward)
