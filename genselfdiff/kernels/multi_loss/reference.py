"""The multi-loss of stage 2 (structural similarity and focal) in plain torch.

Source: GenSelfDiff-HIS (IEEE TMI 2024); the structural similarity loss is that of Zhao, Wu and Cai,
arXiv 1910.08711. The published equation ("pixel") and the authors' code ("scalar") differ in where
the cross entropy enters; both are here.
"""

import math

import torch
import torch.nn.functional as F

FORMS = ("scalar", "pixel")
STABILISER = 0.01  # C in the paper
ERROR_SHARE = 0.1  # pixels with an error above this share of the plane's largest count


def multi_loss_components(
    logits: torch.Tensor,
    labels: torch.Tensor,
    form: str = "scalar",
    focal_gamma: float = 2.0,
    class_weights: torch.Tensor | None = None,
    ignore_label: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Structural similarity loss and focal loss of ``logits`` against ``labels``.

    Args:
        logits: (N, C, H, W) floating; softmax is applied here, over C, through log-softmax, so that
            a probability that underflows costs a large loss and not an infinite one.
        labels: (N, H, W) integer class indices.
        form: "scalar" (authors' code: masked structural error times the mean cross entropy) or
            "pixel" (published equation: the cross entropy weights each pixel).
        focal_gamma: exponent of the focal loss.
        class_weights: (C,), or None. Weight ``w_c`` multiplies the focal and cross-entropy terms of
            pixels of true class c and the structural terms of plane c (so the "pixel" form, a
            product of both, carries its square); denominators stay counts.
        ignore_label: pixels with this label leave every mean, deviation, maximum, sum and count.

    Returns:
        Two scalars, (structural similarity, focal), in the dtype of ``logits``. All pixels ignored
        gives zeros with zero gradients.

    Raises:
        RuntimeError: shapes or dtypes do not fit, a label is neither a class nor ``ignore_label``,
            no such form, or an exponent between 0 and 1, whose gradient is infinite at p = 1.
    """
    check(logits, labels, form, focal_gamma, class_weights, ignore_label)
    n, c, height, width = logits.shape
    log_p = F.log_softmax(logits.flatten(2), dim=1)
    flat = labels.reshape(n, 1, height * width).long()
    valid = (
        torch.ones_like(flat, dtype=torch.bool) if ignore_label is None else flat != ignore_label
    )
    safe = flat.clamp(0, c - 1)
    target = torch.zeros_like(log_p).scatter_(1, safe, 1.0)
    inside = valid.to(log_p.dtype)
    weights = torch.ones(c, dtype=log_p.dtype, device=log_p.device)
    if class_weights is not None:
        weights = class_weights.to(log_p)
    pixels = inside.sum().clamp(min=1.0)

    log_p_true = log_p.gather(1, safe)
    pixel_weight = weights[safe] * inside
    cross_entropy = -log_p_true * pixel_weight
    focal = ((1.0 - log_p_true.exp()) ** focal_gamma * cross_entropy).sum() / pixels

    p = log_p.exp()
    error = (_standardised(target, inside) - _standardised(p, inside)).abs()
    with torch.no_grad():
        masked = error * inside
        counted = (masked > ERROR_SHARE * masked.amax(dim=2, keepdim=True)).to(error.dtype) * inside
        count = counted.sum().clamp(min=1.0)
    structural = error * counted * weights[None, :, None]
    if form == "pixel":
        similarity = (structural * target * -log_p * weights[None, :, None]).sum() / count
    else:
        similarity = structural.sum() / count * (cross_entropy.sum() / pixels)
    return similarity, focal


def multi_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    form: str = "scalar",
    focal_gamma: float = 2.0,
    class_weights: torch.Tensor | None = None,
    ignore_label: int | None = None,
) -> torch.Tensor:
    """Sum of both parts of ``multi_loss_components`` (equal weights, as published)."""
    similarity, focal = multi_loss_components(
        logits, labels, form, focal_gamma, class_weights, ignore_label
    )
    return similarity + focal


def check(
    logits: torch.Tensor,
    labels: torch.Tensor,
    form: str,
    focal_gamma: float,
    class_weights: torch.Tensor | None,
    ignore_label: int | None,
) -> None:
    """Raise RuntimeError for arguments that no implementation takes.

    Values of labels are looked at on the CPU only, and not while compiling: elsewhere that would
    wait for the device.
    """
    if form not in FORMS:
        raise RuntimeError(f"multi_loss: form must be one of {', '.join(FORMS)}, not {form}")
    if focal_gamma != 0 and not 1 <= focal_gamma < math.inf:
        raise RuntimeError(f"multi_loss: focal_gamma must be 0 or at least 1, not {focal_gamma:g}")
    if logits.dim() != 4 or not logits.dtype.is_floating_point:
        raise RuntimeError("multi_loss: logits must be floating point of shape (N, C, H, W)")
    n, c, height, width = logits.shape
    if labels.dtype.is_floating_point or labels.shape != (n, height, width):
        raise RuntimeError(
            f"multi_loss: labels must be integers of shape ({n}, {height}, {width}), like logits"
        )
    if class_weights is not None and class_weights.shape != (c,):
        raise RuntimeError(f"multi_loss: class_weights must have shape ({c},), one a class")
    if labels.device.type != "cpu" or torch.compiler.is_compiling() or not labels.numel():
        return
    outside = (labels < 0) | (labels >= c)
    if ignore_label is not None:
        outside &= labels != ignore_label
    if outside.any():
        raise RuntimeError(
            f"multi_loss: label {labels[outside][0].item()} is none of the {c} classes"
        )


def _standardised(plane: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """(plane - mean + C) / (std + C) over the valid pixels; (N, C, P) with ``inside`` (N, 1, P)."""
    count = inside.sum(dim=2, keepdim=True)
    mean = (plane * inside).sum(dim=2, keepdim=True) / count.clamp(min=1.0)
    centred = (plane - mean) * inside
    variance = (centred**2).sum(dim=2, keepdim=True) / (count - 1.0).clamp(min=1.0)
    # sqrt has an infinite slope at 0: a constant plane must give a zero gradient, not NaN.
    positive = variance > 0
    deviation = torch.where(positive, torch.where(positive, variance, 1.0).sqrt(), 0.0)
    return (plane - mean + STABILISER) / (deviation + STABILISER)
