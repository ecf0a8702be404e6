"""The time-weighted squared error in plain torch: the truth for the fast ones."""

import torch

from genselfdiff.kernels.checks import check_times, look_up


def p2_loss(
    pred: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, weights: torch.Tensor, mean: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain-torch ``gsd::p2_loss``: the loss and its gradient in ``pred``.

    The loss is differentiable by autograd as well; see :func:`genselfdiff.kernels.p2_loss`.
    """
    check(pred, noise)
    check_times("p2_loss", t, pred.shape[0], weights, "weights")
    dtype = torch.promote_types(pred.dtype, torch.float32)
    difference = pred.to(dtype) - noise.to(dtype)
    weight = look_up(weights, t, difference)
    samples = pred.shape[0]
    divisor = pred.numel() if mean else pred.numel() // samples
    loss = (weight * difference.square()).sum() / divisor
    grad = 2.0 / divisor * weight * difference.detach()
    return loss, grad.to(pred.dtype).contiguous()


def check(pred: torch.Tensor, noise: torch.Tensor) -> None:
    """Raise RuntimeError for images that no implementation takes."""
    if not pred.dtype.is_floating_point:
        raise RuntimeError(f"p2_loss: pred must be floating point, not {pred.dtype}")
    if pred.shape != noise.shape or pred.dtype != noise.dtype:
        raise RuntimeError("p2_loss: pred and noise must have the same shape and dtype")
    if pred.dim() < 1 or pred.numel() == 0:
        raise RuntimeError("p2_loss: pred must have a batch dimension and must not be empty")
