"""The operation ``gsd::p2_loss`` and the function that calls it."""

from typing import Any

import torch

from genselfdiff.kernels.autograd import scale_gradient
from genselfdiff.kernels.backends import Operation
from genselfdiff.kernels.p2_loss import reference

OPERATION = Operation(
    "p2_loss",
    frozenset({torch.float32, torch.bfloat16}),
    tables=frozenset({"weights"}),
)


def p2_loss(
    pred: torch.Tensor,
    noise: torch.Tensor,
    t: torch.Tensor,
    weights: torch.Tensor,
    *,
    reduction: str = "mean",
) -> torch.Tensor:
    """Squared error of the predicted noise, weighted by time step.

    For each sample ``weights[t] * sum((pred - noise)^2) / elements``, then the mean over the batch,
    or the sum as in the published code. Source: Choi et al., "Perception prioritized training of
    diffusion models" (2022); with k = gamma = 1 the weights are ``1 - alpha_bars``. The native
    kernel gives the same bits for any number of threads.

    Args:
        pred: (N, ...) predicted noise, floating point, any strides.
        noise: the noise that was added, of the same shape and dtype.
        t: int64 (N,) time steps.
        weights: float64 (T,), one weight a time step.
        reduction: "mean" or "batch_sum".

    Returns:
        A scalar, float32 (float64 for float64), differentiable once in ``pred`` and ``noise``.

    Raises:
        ValueError: an unknown reduction.
        RuntimeError: shapes or dtypes do not fit, the batch is empty, or a time step lies outside
            the table.
        InputError: GSD_KERNELS or GSD_CPU_ISA asks for what cannot run.
    """
    if reduction not in ("mean", "batch_sum"):
        raise ValueError(f"p2_loss: reduction must be mean or batch_sum, not {reduction}")
    mean = reduction == "mean"
    if OPERATION.backend(pred.device, pred.dtype) == "reference":
        loss, _ = reference.p2_loss(pred, noise, t, weights, mean)
    else:
        loss, _ = torch.ops.gsd.p2_loss(pred, noise, t, weights, mean)
    return loss


def _shapes(
    pred: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, weights: torch.Tensor, mean: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    dtype = torch.promote_types(pred.dtype, torch.float32)
    return pred.new_empty((), dtype=dtype), pred.new_empty(pred.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    pred, noise, *_ = inputs
    _, grad_pred = output
    # pred and noise are only for the error message of a second derivative; both are alive anyway.
    ctx.save_for_backward(grad_pred, pred, noise)
    ctx.mark_non_differentiable(grad_pred)
    ctx.set_materialize_grads(False)  # no zeros for the second result


def _backward(
    ctx: Any, grad_loss: torch.Tensor, _: torch.Tensor
) -> tuple[torch.Tensor | None, ...]:
    grad_pred, pred, noise = ctx.saved_tensors
    grad = scale_gradient("p2_loss", grad_loss, grad_pred, pred, noise)
    grad_noise = -grad if ctx.needs_input_grad[1] else None
    return grad, grad_noise, None, None, None


OPERATION.register(
    "(Tensor pred, Tensor noise, Tensor t, Tensor weights, bool mean)"
    " -> (Tensor loss, Tensor grad_pred)",
    reference.p2_loss,
    _shapes,
)
OPERATION.register_autograd(_setup_context, _backward)
