"""What the backward passes of the operations have in common."""

from typing import Any

import torch


def scale_gradient(
    op: str, grad_loss: torch.Tensor, grad: torch.Tensor, *sources: torch.Tensor
) -> torch.Tensor:
    """``grad_loss * grad``, for losses whose kernel makes the gradient in the forward pass.

    Args:
        op: the operation.
        grad_loss: scalar gradient of what follows.
        grad: gradient of the loss, as the kernel made it.
        sources: as for `differentiable_once`.
    """
    # Most often the loss is the last thing computed. Reading the factor would stop a GPU, and a
    # subclass (of a compiler's) has no value.
    if grad_loss.device.type == "cpu" and type(grad_loss) is torch.Tensor and grad_loss.item() == 1:
        scaled = grad
    else:
        scaled = grad_loss * grad
    return differentiable_once(op, scaled, *sources)


def differentiable_once(op: str, grad: torch.Tensor, *sources: torch.Tensor) -> torch.Tensor:
    """``grad``; being differentiated in turn is an error that names ``op``.

    Args:
        op: the operation.
        grad: its gradient in one of its inputs.
        sources: the inputs that a second derivative would be taken in.
    """
    if not torch.is_grad_enabled():  # nobody asked for a graph of the gradient
        return grad
    result: torch.Tensor = _DifferentiableOnce.apply(op, grad, *sources)  # type: ignore[no-untyped-call]
    return result


class _DifferentiableOnce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, op: str, grad: torch.Tensor, *sources: torch.Tensor) -> torch.Tensor:
        """Give ``grad``, made to depend on ``sources`` in the eyes of autograd."""
        ctx.op = op
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Refuse."""
        raise RuntimeError(
            f"{ctx.op} has no second derivative: use float64 or GSD_KERNELS=reference where one is"
            " needed"
        )
