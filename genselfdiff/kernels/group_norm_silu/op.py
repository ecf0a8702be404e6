"""The operation ``gsd::group_norm_silu``, its backward, and the function that calls it."""

from typing import Any

import torch

from genselfdiff.kernels.autograd import differentiable_once
from genselfdiff.kernels.backends import Operation
from genselfdiff.kernels.checks import check_normed
from genselfdiff.kernels.group_norm_silu import reference

OPERATION = Operation("group_norm_silu", frozenset({torch.float32, torch.bfloat16}))
_BACKWARD = Operation("group_norm_silu_backward", OPERATION.dtypes)


def group_norm_silu(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    groups: int,
    shift: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> torch.Tensor:
    """``SiLU(GroupNorm(x)) + shift + residual``.

    The native kernel reads ``x`` twice, keeps only the groups' statistics for the backward pass,
    and gives the same bits for any number of threads. It works on channels_last memory; other
    inputs take plain torch, which is faster than converting them.

    Args:
        x: (N, C, H, W), any floating dtype and memory format.
        weight: (C,) gain.
        bias: (C,) offset.
        groups: number of groups; divides C.
        shift: (N, C) per-channel shift (the time embedding), or None.
        residual: shaped like ``x``, or None.
        eps: added to the variance.

    Returns:
        A tensor shaped like ``x``; channels_last where the kernel is native. Its dtype is that of
        ``x`` whatever the parameters and ``shift`` have; with a residual of another, what both
        promote to.

    Raises:
        RuntimeError: shapes do not fit.
        ValueError: a group has one element, in a batch of one.
        InputError: GSD_KERNELS or GSD_CPU_ISA asks for what cannot run.
    """
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return reference.group_norm_silu(x, weight, bias, groups, shift, residual, eps)
    check_normed("group_norm_silu", x, groups)
    obstacle = ""
    if residual is not None and residual.dtype != x.dtype:
        obstacle = "the kernel of group_norm_silu takes a residual of the dtype of x"
    detour = x.dim() != 4 or not x.is_contiguous(memory_format=torch.channels_last)
    if OPERATION.backend(x.device, x.dtype, obstacle, detour=detour) == "reference":
        return reference.group_norm_silu(x, weight, bias, groups, shift, residual, eps)
    y, _, _ = torch.ops.gsd.group_norm_silu(x, weight, bias, groups, shift, residual, eps)
    return y


def _shapes(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    groups: int,
    shift: torch.Tensor | None,
    residual: torch.Tensor | None,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    statistics = x.new_empty(
        (x.shape[0], groups), dtype=torch.promote_types(x.dtype, torch.float32)
    )
    y = torch.empty_like(x, memory_format=torch.channels_last)
    return y, statistics, torch.empty_like(statistics)


def _backward_shapes(
    grad_y: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    mean: torch.Tensor,
    rstd: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    channels = x.shape[1]
    return (
        torch.empty_like(x, memory_format=torch.channels_last),
        mean.new_empty(channels),
        mean.new_empty(channels),
        mean.new_empty((x.shape[0], channels)),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    x, weight, bias, _, shift, residual, _ = inputs
    _, mean, rstd = output
    ctx.save_for_backward(x, weight, bias, mean, rstd)
    ctx.shift_dtype = None if shift is None else shift.dtype
    ctx.has_residual = residual is not None
    ctx.mark_non_differentiable(mean, rstd)
    ctx.set_materialize_grads(False)  # no zeros for the statistics


def _backward(ctx: Any, grad_y: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:
    x, weight, bias, mean, rstd = ctx.saved_tensors
    grads = torch.ops.gsd.group_norm_silu_backward(grad_y, x, weight, bias, mean, rstd)
    grad_x, grad_weight, grad_bias, grad_shift = (
        differentiable_once("group_norm_silu", grad, grad_y, x, weight, bias) for grad in grads
    )
    return (
        grad_x,
        grad_weight.to(weight.dtype),
        grad_bias.to(bias.dtype),
        None,
        None if ctx.shift_dtype is None else grad_shift.to(ctx.shift_dtype),
        grad_y if ctx.has_residual else None,
        None,
    )


OPERATION.register(
    "(Tensor x, Tensor weight, Tensor bias, int groups, Tensor? shift, Tensor? residual, float eps)"
    " -> (Tensor y, Tensor mean, Tensor rstd)",
    reference.forward,
    _shapes,
)
_BACKWARD.register(
    "(Tensor grad_y, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor rstd)"
    " -> (Tensor grad_x, Tensor grad_weight, Tensor grad_bias, Tensor grad_shift)",
    reference.backward,
    _backward_shapes,
)
OPERATION.register_autograd(_setup_context, _backward)
