"""The multi-loss on the GPU, with its gradient, as Triton kernels: three passes over the pixels.

A program takes a run of pixels of one image and walks over the classes; between the passes small
kernels add up, in a fixed order, what the runs have found. The softmax is computed anew in each
pass: the logits are small enough to stay in the cache, and nothing but sums is stored. Names are
those of csrc/cpu/kernels/multi_loss.h; the formula is in reference.py.
"""

import torch
import triton
import triton.language as tl

from genselfdiff.kernels.checks import check_dtype
from genselfdiff.kernels.multi_loss import reference

_RUN = 1024  # pixels of a program; fixed, so that the sums do not depend on the device
_MERGED = 256  # runs that a merging program holds at once
_STABILISER = tl.constexpr(reference.STABILISER)
_ERROR_SHARE = tl.constexpr(reference.ERROR_SHARE)
# What is kept of a run of pixels, of a plane in a run after each pass, and of a plane.
_PIXEL_SUMS = tl.constexpr(3)  # valid pixels, cross entropy, focal loss
_SPREAD = tl.constexpr(7)  # labelled pixels, mean, squares, least and most in and out of the label
_ERRORS = tl.constexpr(4)  # counted pixels, error, slope, slope by e
_SHAPE = tl.constexpr(7)  # mean, inverse, offset, target in and out, threshold, deviation


def multi_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    class_weights: torch.Tensor | None,
    pixel_form: bool,
    focal_gamma: float,
    ignore_label: int | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Triton's ``gsd::multi_loss``: the loss and its gradient in ``logits``.

    The device does not stop to look at ``labels``: one that is no class makes the loss NaN.
    """
    check_dtype("multi_loss", "logits", logits, (torch.float32, torch.bfloat16))
    reference.check(logits, labels, focal_gamma, class_weights, ignore_label)
    if labels.dtype != torch.int64:
        raise RuntimeError("multi_loss: labels must be integers of 64 bits, like an index")
    n, classes = logits.shape[:2]
    flat, labels = logits.flatten(2), labels.contiguous()  # channels_last logits stay as they are
    pixels = flat.shape[2]
    grad = logits.new_empty(logits.shape)

    def floats(*shape: int) -> torch.Tensor:
        return logits.new_empty(shape, dtype=torch.float32)

    if logits.numel() == 0:
        return floats().zero_(), grad
    if class_weights is None:
        weights = floats(classes).fill_(1.0)
    else:
        weights = class_weights.to(logits.device, torch.float32).contiguous()
    runs = triton.cdiv(pixels, _RUN)
    pixel_sums = floats(n, _PIXEL_SUMS.value, runs)
    spread, errors = (
        floats(n, _SPREAD.value, classes, runs),
        floats(n, _ERRORS.value, classes, runs),
    )
    shapes = floats(n, _SHAPE.value, classes)
    totals = logits.new_empty((n, _ERRORS.value, classes), dtype=torch.float64)
    loss, factors = floats(), floats(4)
    image = (
        flat, labels, weights, classes, pixels, *flat.stride(),
        ignore_label or 0, int(ignore_label is not None),
    )  # fmt: skip
    constants = (pixel_form, focal_gamma, _RUN)
    statistics_kernel[(runs, n)](*image, pixel_sums, spread, *constants)
    standardise_kernel[(classes, n)](pixel_sums, spread, shapes, classes, runs, _MERGED)
    errors_kernel[(runs, n)](*image, shapes, errors, *constants)
    gather_kernel[(classes, n)](errors, totals, classes, runs, _MERGED)
    loss_kernel[(1,)](
        pixel_sums, totals, weights, loss, factors, n, classes, runs, pixel_form, _MERGED
    )
    gradient_kernel[(runs, n)](
        *image, shapes, pixel_sums, totals, factors, grad, runs, *constants, _MERGED
    )
    return loss, grad


@triton.jit
def _label_of(labels, pixel, inside, classes, ignored, ignores, pixels):
    """Class numbers, -1 for ignored pixels and beyond the image, -2 for what is no class."""
    label = tl.load(labels + tl.program_id(1).to(tl.int64) * pixels + pixel, mask=inside, other=0)
    left_out = (inside == 0) | ((ignores != 0) & (label == ignored))
    known = tl.where((label >= 0) & (label < classes), label, -2)
    return tl.where(left_out, -1, known).to(tl.int32)


@triton.jit
def _softmax(at, class_stride, classes, inside, label):
    """Largest logit, the softmax's denominator, ln p of the true class (NaN if it is none)."""
    peak = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    for c in range(1, classes):
        peak = tl.maximum(peak, _logit(at, class_stride, c, inside))
    total = tl.zeros_like(peak)
    true_logit = tl.where(label == -2, float("nan"), tl.zeros_like(peak))
    for c in range(0, classes):
        z = _logit(at, class_stride, c, inside) - peak
        total += tl.exp(z)
        true_logit = tl.where(label == c, z, true_logit)
    return peak, total, true_logit - tl.log(total)


@triton.jit
def _logit(at, class_stride, c, inside):
    return tl.load(at + c * class_stride, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _power(q, EXPONENT: tl.constexpr):
    if EXPONENT == 0.0:
        result = tl.full(q.shape, 1.0, tl.float32)
    elif EXPONENT == 1.0:
        result = q
    elif EXPONENT == 2.0:
        result = q * q
    else:
        result = tl.where(q > 0.0, tl.exp(EXPONENT * tl.log(tl.maximum(q, 1.2e-38))), 0.0)
    return result


@triton.jit(do_not_specialize=["ignored", "ignores"])
def statistics_kernel(
    logits,  # (N, C, pixels), float32 or bfloat16
    labels,  # (N, pixels) int64
    weights,  # (C) float32
    classes,
    pixels,
    image_stride: tl.int64,
    class_stride: tl.int64,
    pixel_stride: tl.int64,
    ignored: tl.int64,
    ignores,
    pixel_sums,  # (N, _PIXEL_SUMS, runs) float32
    spread,  # (N, _SPREAD, C, runs) float32
    PIXEL_FORM: tl.constexpr,
    GAMMA: tl.constexpr,
    RUN: tl.constexpr,
):
    run, runs, image = tl.program_id(0), tl.num_programs(0), tl.program_id(1).to(tl.int64)
    pixel = run * RUN + tl.arange(0, RUN)
    inside = pixel < pixels
    label = _label_of(labels, pixel, inside, classes, ignored, ignores, pixels)
    at = logits + image * image_stride + pixel.to(tl.int64) * pixel_stride
    peak, total, log_true = _softmax(at, class_stride, classes, inside, label)
    valid = label != -1
    count = tl.sum(valid.to(tl.float32))

    weight = tl.load(weights + label, mask=label >= 0, other=1.0)
    weighted = tl.where(valid, -log_true * weight, 0.0)
    focal = tl.where(valid, weighted * _power(1.0 - tl.exp(log_true), GAMMA), 0.0)
    to = pixel_sums + image * _PIXEL_SUMS * runs + run
    tl.store(to, count)
    tl.store(to + runs, tl.sum(weighted))
    tl.store(to + 2 * runs, tl.sum(focal))

    infinity = float("inf")
    for c in range(0, classes):
        p = tl.exp(_logit(at, class_stride, c, inside) - peak) / total
        mean = tl.sum(tl.where(valid, p, 0.0)) / tl.maximum(count, 1.0)
        apart = tl.where(valid, p - mean, 0.0)
        here, elsewhere = label == c, valid & (label != c)
        to = spread + (image * _SPREAD * classes + c) * runs + run
        step = classes * runs
        tl.store(to, tl.sum(here.to(tl.float32)))
        tl.store(to + step, mean)
        tl.store(to + 2 * step, tl.sum(apart * apart))
        tl.store(to + 3 * step, tl.min(tl.where(here, p, infinity)))
        tl.store(to + 4 * step, tl.max(tl.where(here, p, -infinity)))
        tl.store(to + 5 * step, tl.min(tl.where(elsewhere, p, infinity)))
        tl.store(to + 6 * step, tl.max(tl.where(elsewhere, p, -infinity)))


@triton.jit
def _deviation(squares, count):
    return tl.sqrt(tl.maximum(squares, 0.0) / tl.maximum(count - 1.0, 1.0))


@triton.jit
def _error(target, p, mean, inverse, offset):
    return tl.abs(target - ((p - mean) * inverse + offset))


@triton.jit(do_not_specialize=["classes", "runs"])
def standardise_kernel(
    pixel_sums,  # (N, _PIXEL_SUMS, runs) float32
    spread,  # (N, _SPREAD, C, runs) float32
    shapes,  # (N, _SHAPE, C) float32
    classes,
    runs,
    BLOCK: tl.constexpr,
):
    c, image = tl.program_id(0), tl.program_id(1).to(tl.int64)
    counts = pixel_sums + image * _PIXEL_SUMS * runs
    plane = spread + (image * _SPREAD * classes + c) * runs
    step = classes * runs
    infinity = float("inf")
    valid = tl.zeros([BLOCK], tl.float64)
    labelled = tl.zeros([BLOCK], tl.float64)
    total = tl.zeros([BLOCK], tl.float64)
    least_in = tl.full([BLOCK], infinity, tl.float32)
    most_in = tl.full([BLOCK], -infinity, tl.float32)
    least_out = tl.full([BLOCK], infinity, tl.float32)
    most_out = tl.full([BLOCK], -infinity, tl.float32)
    for start in range(0, runs, BLOCK):
        r = start + tl.arange(0, BLOCK)
        inside = r < runs
        count = tl.load(counts + r, mask=inside, other=0.0).to(tl.float64)
        valid += count
        labelled += tl.load(plane + r, mask=inside, other=0.0).to(tl.float64)
        total += count * tl.load(plane + step + r, mask=inside, other=0.0).to(tl.float64)
        ends = plane + 3 * step + r
        least_in = tl.minimum(least_in, tl.load(ends, mask=inside, other=infinity))
        most_in = tl.maximum(most_in, tl.load(ends + step, mask=inside, other=-infinity))
        least_out = tl.minimum(least_out, tl.load(ends + 2 * step, mask=inside, other=infinity))
        most_out = tl.maximum(most_out, tl.load(ends + 3 * step, mask=inside, other=-infinity))
    count_all = tl.sum(valid)
    divisor = tl.maximum(count_all, 1.0)
    centre = tl.sum(total) / divisor
    squares = tl.zeros([BLOCK], tl.float64)
    for start in range(0, runs, BLOCK):
        r = start + tl.arange(0, BLOCK)
        inside = r < runs
        count = tl.load(counts + r, mask=inside, other=0.0).to(tl.float64)
        apart = tl.load(plane + step + r, mask=inside, other=0.0).to(tl.float64) - centre
        within = tl.load(plane + 2 * step + r, mask=inside, other=0.0).to(tl.float64)
        squares += within + count * apart * apart
    deviation = _deviation(tl.sum(squares), divisor)
    wide_inverse = 1.0 / (deviation + _STABILISER)
    mean, inverse = centre.to(tl.float32), wide_inverse.to(tl.float32)
    # What rounding the mean takes away is given back here: a flat plane would magnify it.
    offset = ((mean.to(tl.float64) - centre + _STABILISER) * wide_inverse).to(tl.float32)
    inside_all = tl.sum(labelled)
    share = inside_all / divisor
    target_deviation = _deviation(inside_all * (1.0 - share), divisor) + _STABILISER
    target_in = ((1.0 - share + _STABILISER) / target_deviation).to(tl.float32)
    target_out = ((0.0 - share + _STABILISER) / target_deviation).to(tl.float32)
    # The largest error lies at an end of the probabilities' range.
    in_a = _error(target_in, tl.min(least_in), mean, inverse, offset)
    in_b = _error(target_in, tl.max(most_in), mean, inverse, offset)
    out_a = _error(target_out, tl.min(least_out), mean, inverse, offset)
    out_b = _error(target_out, tl.max(most_out), mean, inverse, offset)
    largest = tl.where(inside_all > 0.0, tl.maximum(in_a, in_b), 0.0)
    largest = tl.where(
        inside_all < count_all, tl.maximum(largest, tl.maximum(out_a, out_b)), largest
    )
    to = shapes + image * _SHAPE * classes + c
    tl.store(to, mean)
    tl.store(to + classes, inverse)
    tl.store(to + 2 * classes, offset)
    tl.store(to + 3 * classes, target_in)
    tl.store(to + 4 * classes, target_out)
    tl.store(to + 5 * classes, largest * _ERROR_SHARE)
    tl.store(to + 6 * classes, deviation.to(tl.float32))


@triton.jit
def _difference(shapes, image, c, classes, here, p):
    """Standardised target minus standardised probability, the latter, and the threshold."""
    shape = shapes + image * _SHAPE * classes + c
    e_p = (p - tl.load(shape)) * tl.load(shape + classes) + tl.load(shape + 2 * classes)
    target = tl.where(here, tl.load(shape + 3 * classes), tl.load(shape + 4 * classes))
    return target - e_p, e_p, tl.load(shape + 5 * classes)


@triton.jit(do_not_specialize=["ignored", "ignores"])
def errors_kernel(
    logits,  # (N, C, pixels), float32 or bfloat16
    labels,  # (N, pixels) int64
    weights,  # (C) float32
    classes,
    pixels,
    image_stride: tl.int64,
    class_stride: tl.int64,
    pixel_stride: tl.int64,
    ignored: tl.int64,
    ignores,
    shapes,  # (N, _SHAPE, C) float32
    errors,  # (N, _ERRORS, C, runs) float32
    PIXEL_FORM: tl.constexpr,
    GAMMA: tl.constexpr,
    RUN: tl.constexpr,
):
    run, runs, image = tl.program_id(0), tl.num_programs(0), tl.program_id(1).to(tl.int64)
    pixel = run * RUN + tl.arange(0, RUN)
    inside = pixel < pixels
    label = _label_of(labels, pixel, inside, classes, ignored, ignores, pixels)
    at = logits + image * image_stride + pixel.to(tl.int64) * pixel_stride
    peak, total, log_true = _softmax(at, class_stride, classes, inside, label)
    for c in range(0, classes):
        p = tl.exp(_logit(at, class_stride, c, inside) - peak) / total
        here = label == c
        d, e_p, threshold = _difference(shapes, image, c, classes, here, p)
        large = (tl.abs(d) > threshold) & (label != -1)
        if PIXEL_FORM:
            weight = tl.where(large & here, -log_true, 0.0)
        else:
            weight = large.to(tl.float32)
        slope = tl.where(d < 0.0, weight, -weight)
        to = errors + (image * _ERRORS * classes + c) * runs + run
        step = classes * runs
        tl.store(to, tl.sum(large.to(tl.float32)))
        tl.store(to + step, tl.sum(weight * tl.abs(d)))
        tl.store(to + 2 * step, tl.sum(slope))
        tl.store(to + 3 * step, tl.sum(slope * e_p))


@triton.jit(do_not_specialize=["classes", "runs"])
def gather_kernel(
    errors,  # (N, _ERRORS, C, runs) float32
    totals,  # (N, _ERRORS, C) float64
    classes,
    runs,
    BLOCK: tl.constexpr,
):
    plane = tl.program_id(1).to(tl.int64) * _ERRORS * classes + tl.program_id(0)
    for what in tl.static_range(_ERRORS):
        at = plane + what * classes
        tl.store(totals + at, _sum_runs(errors + at * runs, runs, BLOCK))


@triton.jit
def _sum_runs(first, runs, BLOCK: tl.constexpr):
    total = tl.zeros([BLOCK], tl.float64)
    for start in range(0, runs, BLOCK):
        r = start + tl.arange(0, BLOCK)
        total += tl.load(first + r, mask=r < runs, other=0.0).to(tl.float64)
    return tl.sum(total)


@triton.jit(do_not_specialize=["images", "classes", "runs"])
def loss_kernel(
    pixel_sums,  # (N, _PIXEL_SUMS, runs) float32
    totals,  # (N, _ERRORS, C) float64
    weights,  # (C) float32
    loss,  # scalar float32
    factors,  # (4) float32: of slopes, and of the gradient by ln p of cross entropy, focal, error
    images,
    classes,
    runs,
    PIXEL_FORM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    none = tl.full([], 0.0, tl.float64)
    valid, cross_entropy, focal, counted, error = none, none, none, none, none
    for image in range(0, images):
        sums = pixel_sums + image * _PIXEL_SUMS * runs
        valid += _sum_runs(sums, runs, BLOCK)
        cross_entropy += _sum_runs(sums + runs, runs, BLOCK)
        focal += _sum_runs(sums + 2 * runs, runs, BLOCK)
        for start in range(0, classes, BLOCK):
            c = start + tl.arange(0, BLOCK)
            weight = tl.load(weights + c, mask=c < classes, other=0.0).to(tl.float64)
            if PIXEL_FORM:
                weight = weight * weight
            at = totals + image * _ERRORS * classes + c
            counted += tl.sum(tl.load(at, mask=c < classes, other=0.0))
            error += tl.sum(weight * tl.load(at + classes, mask=c < classes, other=0.0))
    valid, counted = tl.maximum(valid, 1.0), tl.maximum(counted, 1.0)
    cross_entropy, error = cross_entropy / valid, error / counted
    if PIXEL_FORM:
        similarity, slope, by_cross_entropy = error, 1.0 / counted, none
    else:
        similarity, slope = error * cross_entropy, cross_entropy / counted
        by_cross_entropy = error / valid
    tl.store(loss, (similarity + focal / valid).to(tl.float32))
    tl.store(factors, slope.to(tl.float32))
    tl.store(factors + 1, by_cross_entropy.to(tl.float32))
    tl.store(factors + 2, (1.0 / valid).to(tl.float32))
    tl.store(factors + 3, (1.0 / counted).to(tl.float32))


@triton.jit
def _in_p(
    shapes, totals, weights, image, c, classes, count, slope, label, log_true, p,
    PIXEL_FORM: tl.constexpr,
):  # fmt: skip
    """Gradient of the structural term in p, and (pixel form) the pixel's weighted error."""
    here = label == c
    d, _, threshold = _difference(shapes, image, c, classes, here, p)
    counted = tl.abs(d) > threshold
    weight = tl.load(weights + c)
    sign = tl.where(d < 0.0, 1.0, -1.0)
    structural = tl.zeros_like(p)
    if PIXEL_FORM:
        weight = weight * weight
        counted = counted & here
        structural = tl.where(counted, tl.abs(d) * weight, 0.0)
        sign = -log_true * sign
    shape = shapes + image * _SHAPE * classes + c
    plane = totals + image * _ERRORS * classes + c
    deviation = tl.load(shape + 6 * classes)
    per_slope = slope * weight * tl.load(shape + classes)
    slope_mean = (tl.load(plane + 2 * classes) / count).to(tl.float32)
    scaled = tl.maximum(count - 1.0, 1.0) * tl.maximum(deviation, 1e-30)
    by_e = (tl.load(plane + 3 * classes) / scaled).to(tl.float32)
    by_e = tl.where(deviation > 0.0, by_e, 0.0)
    centred = p - tl.load(shape)
    return per_slope * (tl.where(counted, sign, 0.0) - slope_mean - centred * by_e), structural


@triton.jit(do_not_specialize=["ignored", "ignores", "runs"])
def gradient_kernel(
    logits,  # (N, C, pixels), float32 or bfloat16
    labels,  # (N, pixels) int64
    weights,  # (C) float32
    classes,
    pixels,
    image_stride: tl.int64,
    class_stride: tl.int64,
    pixel_stride: tl.int64,
    ignored: tl.int64,
    ignores,
    shapes,  # (N, _SHAPE, C) float32
    pixel_sums,  # (N, _PIXEL_SUMS, runs) float32
    totals,  # (N, _ERRORS, C) float64
    factors,  # (4) float32
    grad,  # (N, C, pixels) contiguous, like logits
    runs,
    PIXEL_FORM: tl.constexpr,
    GAMMA: tl.constexpr,
    RUN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * RUN + tl.arange(0, RUN)
    inside = pixel < pixels
    label = _label_of(labels, pixel, inside, classes, ignored, ignores, pixels)
    at = logits + image * image_stride + pixel.to(tl.int64) * pixel_stride
    peak, total, log_true = _softmax(at, class_stride, classes, inside, label)
    valid = label != -1
    count = _sum_runs(pixel_sums + image * _PIXEL_SUMS * runs, runs, BLOCK)
    count = tl.maximum(count, 1.0)
    slope = tl.load(factors)

    mean = tl.zeros([RUN], tl.float32)
    structural = tl.zeros([RUN], tl.float32)
    for c in range(0, classes):
        p = tl.exp(_logit(at, class_stride, c, inside) - peak) / total
        g, error = _in_p(
            shapes, totals, weights, image, c, classes, count, slope, label, log_true, p, PIXEL_FORM
        )
        mean += p * g
        structural += error

    # d focal / d ln p of the true class, and that of the cross entropy, which is 1.
    p_true = tl.exp(log_true)
    q = 1.0 - p_true
    by_log = _power(q, GAMMA)
    if GAMMA != 0.0:
        by_log -= _power(q, GAMMA - 1.0) * p_true * log_true * GAMMA
    weight = tl.load(weights + label, mask=label >= 0, other=0.0)
    by_log = weight * (by_log * tl.load(factors + 2) + tl.load(factors + 1))
    if PIXEL_FORM:
        by_log += structural * tl.load(factors + 3)

    for c in range(0, classes):
        p = tl.exp(_logit(at, class_stride, c, inside) - peak) / total
        g, _ = _in_p(
            shapes, totals, weights, image, c, classes, count, slope, label, log_true, p, PIXEL_FORM
        )
        result = p * (g - mean) + by_log * (p - (label == c).to(tl.float32))
        result = tl.where(valid, result, 0.0)
        to = grad + (image * classes + c) * pixels + pixel
        tl.store(to, result.to(grad.dtype.element_ty), mask=inside)
