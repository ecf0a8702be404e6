"""The operation ``gsd::conv3x3``, its gradients, and the function that calls it."""

from typing import Any

import torch

from genselfdiff.kernels import convolution_rules as rules
from genselfdiff.kernels.autograd import differentiable_once
from genselfdiff.kernels.backends import Operation
from genselfdiff.kernels.conv3x3 import reference

OPERATION = Operation("conv3x3", frozenset({torch.float32, torch.bfloat16}), triton=False)
_PACK = Operation("conv3x3_pack", OPERATION.dtypes, triton=False)
_WEIGHT_GRADIENT = Operation("conv3x3_weight_gradient", OPERATION.dtypes, triton=False)


def conv3x3(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """``conv2d(x, weight, bias, padding=1)`` with a kernel of 3x3.

    The native kernel is Winograd's F(4x4, 3x3), in float32 between reading and writing: a quarter
    of the multiplications. Its errors are those of the sum itself on what networks compute, and
    twice as large on independent values. It packs the weights at each call, and gives the same bits
    for any number of threads and at every place of a batch.
    It works on channels_last memory; other inputs, and sizes and processors for which torch was
    measured to be faster (``convolution_rules.py``), take torch's convolution, as GPUs do.

    Args:
        x: (N, in, H, W), any floating dtype and memory format.
        weight: (out, in, 3, 3).
        bias: (out,), or None.

    Returns:
        (N, out, H, W), of the dtype of ``x`` or that of autocast; channels_last where the kernel
        is native.

    Raises:
        RuntimeError: shapes do not fit.
        InputError: GSD_KERNELS or GSD_CPU_ISA asks for what cannot run.
    """
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return reference.conv3x3(x, weight, bias)
    dtype, detour = x.dtype, False
    if x.device.type == "cpu":
        dtype = rules.computed_in(dtype)
        detour = x.dim() != 4 or not x.is_contiguous(memory_format=torch.channels_last)
        detour = detour or not rules.pays(dtype, x.shape[0] * x.shape[2] * x.shape[3], packed=False)
    if OPERATION.backend(x.device, dtype, detour=detour) == "reference":
        return reference.conv3x3(x, weight, bias)
    y: torch.Tensor = torch.ops.gsd.conv3x3(x.to(dtype), weight, bias, None)
    return y


def packed_weights(weight: torch.Tensor) -> torch.Tensor:
    """Weights as ``gsd::conv3x3`` reads them; empty where torch's convolution is to be taken.

    Args:
        weight: (out, in, 3, 3), of the dtype that is computed in.

    Raises:
        InputError: GSD_KERNELS or GSD_CPU_ISA asks for what cannot run.
        RuntimeError: ``weight`` has another shape.
    """
    detour = not rules.pays(weight.dtype, rules.LEAST_PIXELS, packed=True)
    if OPERATION.backend(weight.device, weight.dtype, detour=detour) == "reference":
        return weight.new_empty(0)
    packed: torch.Tensor = torch.ops.gsd.conv3x3_pack(weight)
    return packed


def _shapes(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    packed: torch.Tensor | None,
) -> torch.Tensor:
    size = (x.shape[0], weight.shape[0], x.shape[2], x.shape[3])
    return x.new_empty(size).contiguous(memory_format=torch.channels_last)


def _pack_shapes(weight: torch.Tensor) -> torch.Tensor:
    blocks = (weight.shape[0] + reference.BLOCK - 1) // reference.BLOCK
    return weight.new_empty(blocks * reference.BLOCK * 36 * weight.shape[1], dtype=torch.float32)


def _weight_gradient_shapes(grad_y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    dtype = torch.promote_types(x.dtype, torch.float32)
    gradient = x.new_empty((grad_y.shape[1], x.shape[1], 3, 3), dtype=dtype)
    return gradient.contiguous(memory_format=torch.channels_last)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, weight, bias, _ = inputs
    ctx.save_for_backward(x, weight)
    ctx.bias_dtype = None if bias is None else bias.dtype


def _backward(ctx: Any, grad_y: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    grad_x = grad_weight = grad_bias = None
    with torch.no_grad():
        if ctx.needs_input_grad[0]:  # a convolution with the turned kernel
            turned = weight.flip((2, 3)).transpose(0, 1)
            grad_x = torch.ops.gsd.conv3x3(grad_y, turned, None, None)
        if ctx.needs_input_grad[1]:
            grad_weight = torch.ops.gsd.conv3x3_weight_gradient(grad_y, x).to(weight.dtype)
        if ctx.needs_input_grad[2]:
            grad_bias = grad_y.sum((0, 2, 3), dtype=torch.float32).to(ctx.bias_dtype)
    once = [
        None if grad is None else differentiable_once("conv3x3", grad, grad_y, x, weight)
        for grad in (grad_x, grad_weight, grad_bias)
    ]
    return *once, None


OPERATION.register(
    "(Tensor x, Tensor weight, Tensor? bias, Tensor? packed) -> Tensor",
    reference.forward,
    _shapes,
)
_PACK.register("(Tensor weight) -> Tensor", reference.pack, _pack_shapes)
_WEIGHT_GRADIENT.register(
    "(Tensor grad_y, Tensor x) -> Tensor", reference.weight_gradient, _weight_gradient_shapes
)
OPERATION.register_autograd(_setup_context, _backward)
