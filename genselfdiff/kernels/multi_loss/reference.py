"""The multi-loss in plain torch: the truth for the fast ones.

Which errors count hangs on a share of the largest, however small that is. So an error may not be
the difference of two nearly equal numbers: where a plane is almost right, rounding would make it.
Probabilities are held as a base, 1 for those near one and else 0, and what they are beyond it;
bases cancel exactly.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

STABILISER = 0.01  # C in the paper
ERROR_SHARE = 0.1  # pixels with an error above this share of the plane's largest count
FAINT = 2.0**-52  # errors up to this are none: what double precision can tell from 1
NEAR_ONE = 15 / 16


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
    pixels = _prepared(logits, labels, class_weights, ignore_label)
    log_p_true, q_true = pixels.of_true(pixels.log_p), -pixels.of_true(pixels.apart())
    cross_entropy = -log_p_true * pixels.weight
    focal = q_true**focal_gamma * cross_entropy

    error = _standardised(pixels).error.abs()
    counted = _counted(error.detach(), pixels.inside)
    structural = error * counted * pixels.weights[:, None]
    if pixel_form:
        structural = structural * pixels.target * -pixels.log_p * pixels.weights[:, None]
    return torch.stack(
        (structural.sum(), counted.sum(), cross_entropy.sum(), focal.sum(), pixels.inside.sum())
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
    pixels = _prepared(wide, labels, class_weights, ignore_label)
    p, target, inside, weight = pixels.p, pixels.target, pixels.inside, pixels.weight
    log_p_true, q = pixels.of_true(pixels.log_p), -pixels.of_true(pixels.apart())
    plane_weights = pixels.weights[:, None]
    valid = inside.sum().clamp(min=1.0)

    planes = _standardised(pixels)
    error = planes.error.abs()
    counted = _counted(error, inside)
    count = counted.sum().clamp(min=1.0)
    mean_error = (error * counted * plane_weights).sum() / count
    mean_cross_entropy = (-log_p_true * weight).sum() / valid

    # d similarity / d e, then / d p.
    slope = -planes.error.sign() * counted * plane_weights / count
    if pixel_form:
        slope = slope * target * -log_p_true * plane_weights
        structural = error * counted * target * plane_weights**2
        by_log = structural.sum(dim=1, keepdim=True) / count  # d loss / d ln p of the true class,
    else:
        slope = slope * mean_cross_entropy
        by_log = mean_error / valid * weight  # negated
    inverse = 1.0 / (planes.deviation + STABILISER)
    n = inside.sum(dim=2, keepdim=True)
    by_deviation = torch.where(
        planes.deviation > 0,
        (slope * (planes.wanted - planes.error)).sum(dim=2, keepdim=True)
        / ((n - 1) * planes.deviation),
        0.0,
    )
    by_p = inverse * (slope - slope.sum(dim=2, keepdim=True) / n.clamp(min=1.0))
    by_p = (by_p - inverse * planes.centred * by_deviation) * inside

    by_focal = q**focal_gamma
    if focal_gamma:
        by_focal = by_focal - focal_gamma * q ** (focal_gamma - 1.0) * (1.0 - q) * log_p_true
    by_log = by_log + weight / valid * by_focal
    grad = p * (by_p - (p * by_p).sum(dim=1, keepdim=True)) + by_log * pixels.apart() * inside
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


class _Pixels(NamedTuple):
    """What is known of the pixels; P stands for those of an image.

    Attributes:
        log_p, p: (N, C, P).
        base: (N, C, P), 1 where p is near one, else 0.
        beyond: (N, C, P), p - base.
        target: (N, C, P), 1 where the label is the class.
        inside: (N, 1, P), 0 where the pixel is ignored, else 1.
        true: (N, 1, P) labels within 0..C-1.
        weights: (C,).
        weight: (N, 1, P) that of the label; 0 where the pixel is ignored.
    """

    log_p: torch.Tensor
    p: torch.Tensor
    base: torch.Tensor
    beyond: torch.Tensor
    target: torch.Tensor
    inside: torch.Tensor
    true: torch.Tensor
    weights: torch.Tensor
    weight: torch.Tensor

    def apart(self) -> torch.Tensor:
        """``p - target``; no property, since torch 2.10 compiles none of a tuple."""
        return self.beyond + (self.base - self.target)

    def of_true(self, planes: torch.Tensor) -> torch.Tensor:
        """(N, C, P) to (N, 1, P): the values of the true classes."""
        return planes.gather(1, self.true)


def _prepared(
    logits: torch.Tensor,
    labels: torch.Tensor,
    class_weights: torch.Tensor | None,
    ignore_label: int | None,
) -> _Pixels:
    flat, classes = labels.flatten(1)[:, None].long(), logits.shape[1]
    inside = torch.ones_like(flat) if ignore_label is None else flat != ignore_label
    true = flat.clamp(0, classes - 1)
    log_p = F.log_softmax(logits.flatten(2).masked_fill(inside == 0, 0.0), dim=1)
    p = log_p.exp()
    near = p.detach() > NEAR_ONE  # one class at most, whose 1 - p is what the others have
    beyond = torch.where(near, -p.masked_fill(near, 0.0).sum(dim=1, keepdim=True), p)
    weights = log_p.new_ones(classes) if class_weights is None else class_weights.to(log_p)
    inside = inside.to(log_p.dtype)
    return _Pixels(
        log_p,
        p,
        near.to(log_p.dtype),
        beyond,
        torch.zeros_like(log_p).scatter_(1, true, 1.0),
        inside,
        true,
        weights,
        weights[true] * inside,
    )


def _counted(error: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """1 for the valid pixels whose error exceeds a share of the largest of their plane, else 0."""
    masked = error * inside
    threshold = (ERROR_SHARE * masked.amax(dim=2, keepdim=True)).clamp(min=FAINT)
    return (masked > threshold).to(error.dtype)


class _Planes(NamedTuple):
    """Standardised planes: (plane - mean + C) / (std + C) over the valid pixels.

    Attributes:
        wanted: (N, C, P), of the target.
        error: (N, C, P), the target's less the probability's.
        centred: (N, C, P), probability less its mean.
        deviation: (N, C, 1), of the probability.
    """

    wanted: torch.Tensor
    error: torch.Tensor
    centred: torch.Tensor
    deviation: torch.Tensor


def _standardised(pixels: _Pixels) -> _Planes:
    """With s and t the deviations of p and of the target, and r = (s - t) / (t + C).

    error = ((target - mean + C) r + (target - mean) - (p - mean)) / (s + C)
    """
    inside, target, base = pixels.inside, pixels.target, pixels.base
    count = inside.sum(dim=2, keepdim=True)
    degrees = (count - 1.0).clamp(min=1.0)

    def mean(plane: torch.Tensor) -> torch.Tensor:
        return (plane * inside).sum(dim=2, keepdim=True) / count.clamp(min=1.0)

    # About the value of a valid pixel, so that a constant plane stays one.
    valid_pixel = inside.argmax(dim=2, keepdim=True).expand(-1, target.shape[1], -1)
    beyond = pixels.beyond - pixels.beyond.detach().gather(2, valid_pixel)
    beyond = beyond - mean(beyond)
    target_mean, base_mean = mean(target), mean(base)
    spread_of_target = count * target_mean * (1.0 - target_mean)
    spread_of_base = count * base_mean * (1.0 - base_mean)
    base_centred = base - base_mean
    of_beyond = (beyond * (beyond + 2.0 * base_centred) * inside).sum(dim=2, keepdim=True)
    deviation = _root((spread_of_base + of_beyond) / degrees)
    of_target = _root(spread_of_target / degrees)
    both = deviation + of_target
    apart = (spread_of_base - spread_of_target + of_beyond) / degrees
    ratio = torch.where(both > 0, apart / torch.where(both > 0, both, 1.0), 0.0)
    ratio = ratio / (of_target + STABILISER)

    above = target - target_mean + STABILISER
    moved = (target - base) - (target_mean - base_mean) - beyond
    return _Planes(
        wanted=above / (of_target + STABILISER),
        error=(above * ratio + moved) / (deviation + STABILISER),
        centred=base_centred + beyond,
        deviation=deviation,
    )


def _root(variance: torch.Tensor) -> torch.Tensor:
    """Square root whose slope at 0, which is infinite, is taken as 0: a constant plane's."""
    positive = variance > 0
    return torch.where(positive, torch.where(positive, variance, 1.0).sqrt(), 0.0)
