"""The multi-loss in plain torch: the truth for the fast ones."""

import math

import torch
import torch.nn.functional as F

FORMS = ("scalar", "pixel")
STABILISER = 0.01  # C in the paper
ERROR_SHARE = 0.1  # pixels with an error above this share of the plane's largest count


def components(
    logits: torch.Tensor,
    labels: torch.Tensor,
    class_weights: torch.Tensor | None,
    pixel_form: bool,
    focal_gamma: float,
    ignore_label: int | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both parts; see :func:`genselfdiff.kernels.multi_loss_components`."""
    return combined(
        sums(logits, labels, class_weights, pixel_form, focal_gamma, ignore_label), pixel_form
    )


def sums(
    logits: torch.Tensor,
    labels: torch.Tensor,
    class_weights: torch.Tensor | None,
    pixel_form: bool,
    focal_gamma: float,
    ignore_label: int | None,
) -> torch.Tensor:
    """(5,) sums over the batch, whose sums over several batches `combined` takes as well.

    Structural error (in the pixel form times the cross entropy of its pixel and class), number of
    the errors that count, cross entropy, focal loss, number of valid pixels.
    """
    check(logits, labels, focal_gamma, class_weights, ignore_label)
    log_p = F.log_softmax(logits.flatten(2), dim=1)
    safe, target, inside, weights = _prepared(log_p, labels, class_weights, ignore_label)
    log_p_true = log_p.gather(1, safe)
    cross_entropy = -log_p_true * weights[safe] * inside
    focal = (1.0 - log_p_true.exp()) ** focal_gamma * cross_entropy

    error = (_standardised(target, inside)[0] - _standardised(log_p.exp(), inside)[0]).abs()
    counted = _counted(error.detach(), inside)
    structural = error * counted * weights[None, :, None]
    if pixel_form:
        structural = structural * target * -log_p * weights[None, :, None]
    return torch.stack(
        (structural.sum(), counted.sum(), cross_entropy.sum(), focal.sum(), inside.sum())
    )


def combined(sums: torch.Tensor, pixel_form: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """(structural similarity, focal) of the batches that ``sums`` has been made over."""
    structural, count, cross_entropy, focal, pixels = sums.unbind()
    count, pixels = count.clamp(min=1.0), pixels.clamp(min=1.0)
    similarity = structural / count
    if not pixel_form:
        similarity = similarity * (cross_entropy / pixels)
    return similarity, focal / pixels


def multi_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    class_weights: torch.Tensor | None,
    pixel_form: bool,
    focal_gamma: float,
    ignore_label: int | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain-torch ``gsd::multi_loss``: the loss and its gradient in ``logits``, in closed form.

    With e the standardised probability of a plane, i = 1 / (std + C), and n its valid pixels:
    d e_k / d p_j = i (delta_kj - 1/n) - e_k i (p_j - mean) / ((n - 1) std).
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    wide = logits.detach().to(dtype)
    similarity, focal = components(
        wide, labels, class_weights, pixel_form, focal_gamma, ignore_label
    )
    log_p = F.log_softmax(wide.flatten(2), dim=1)
    p = log_p.exp()
    safe, target, inside, weights = _prepared(log_p, labels, class_weights, ignore_label)
    pixels = inside.sum().clamp(min=1.0)
    log_p_true, p_true, weight = log_p.gather(1, safe), p.gather(1, safe), weights[safe] * inside
    plane_weights = weights[None, :, None]

    wanted, _, _ = _standardised(target, inside)
    found, mean, deviation = _standardised(p, inside)
    counted = _counted((wanted - found).abs(), inside)
    count = counted.sum().clamp(min=1.0)
    error = ((wanted - found).abs() * counted * plane_weights).sum() / count
    mean_cross_entropy = (-log_p_true * weight).sum() / pixels

    # d similarity / d e, then / d p.
    slope = (found - wanted).sign() * counted * plane_weights / count
    by_log = torch.zeros_like(log_p_true)  # d loss / d ln p of the true class, negated
    if pixel_form:
        slope = slope * target * -log_p_true * plane_weights
        structural = (wanted - found).abs() * counted * target * plane_weights**2
        by_log = structural.sum(dim=1, keepdim=True) / count
    else:
        slope = slope * mean_cross_entropy
        by_log = error / pixels * weight
    inverse = 1.0 / (deviation + STABILISER)
    n = inside.sum(dim=2, keepdim=True)
    by_deviation = torch.where(
        deviation > 0, (slope * found).sum(dim=2, keepdim=True) / ((n - 1) * deviation), 0.0
    )
    by_p = inverse * (slope - slope.sum(dim=2, keepdim=True) / n.clamp(min=1.0))
    by_p = (by_p - inverse * (p - mean) * by_deviation) * inside

    q = 1.0 - p_true
    by_focal = q**focal_gamma
    if focal_gamma:
        by_focal = by_focal - focal_gamma * q ** (focal_gamma - 1.0) * p_true * log_p_true
    by_log = by_log + weight / pixels * by_focal
    grad = p * (by_p - (p * by_p).sum(dim=1, keepdim=True)) + by_log * (p - target) * inside
    return similarity + focal, grad.reshape(logits.shape).to(logits.dtype).contiguous()


def check(
    logits: torch.Tensor,
    labels: torch.Tensor,
    focal_gamma: float,
    class_weights: torch.Tensor | None,
    ignore_label: int | None,
) -> None:
    """Raise RuntimeError for arguments that no implementation takes.

    Values of labels are looked at on the CPU only, and not while compiling: elsewhere that would
    wait for the device.
    """
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


def _prepared(
    log_p: torch.Tensor,
    labels: torch.Tensor,
    class_weights: torch.Tensor | None,
    ignore_label: int | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Labels (N, 1, P) within 0..C-1, one-hot (N, C, P), valid as 0 or 1 (N, 1, P), weights."""
    flat = labels.flatten(1)[:, None].long()
    inside = torch.ones_like(flat) if ignore_label is None else flat != ignore_label
    safe = flat.clamp(0, log_p.shape[1] - 1)
    target = torch.zeros_like(log_p).scatter_(1, safe, 1.0)
    weights = log_p.new_ones(log_p.shape[1]) if class_weights is None else class_weights.to(log_p)
    return safe, target, inside.to(log_p.dtype), weights


def _counted(error: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """1 for the valid pixels whose error exceeds a share of the largest of their plane, else 0."""
    masked = error * inside
    return (masked > ERROR_SHARE * masked.amax(dim=2, keepdim=True)).to(error.dtype)


def _standardised(
    plane: torch.Tensor, inside: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(plane - mean + C) / (std + C) over the valid pixels, the mean, and std; (N, C, P or 1)."""
    count = inside.sum(dim=2, keepdim=True)
    mean = (plane * inside).sum(dim=2, keepdim=True) / count.clamp(min=1.0)
    centred = (plane - mean) * inside
    variance = (centred**2).sum(dim=2, keepdim=True) / (count - 1.0).clamp(min=1.0)
    # sqrt has an infinite slope at 0: a constant plane must give a zero gradient, not NaN.
    positive = variance > 0
    deviation = torch.where(positive, torch.where(positive, variance, 1.0).sqrt(), 0.0)
    return (plane - mean + STABILISER) / (deviation + STABILISER), mean, deviation
