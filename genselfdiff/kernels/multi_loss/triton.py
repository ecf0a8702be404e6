"""The multi-loss on the GPU, with its gradient, as Triton kernels: three passes over the pixels.

A program takes a run of pixels of one image and walks over the classes; between the passes small
kernels add up, in a fixed order, what the runs have found. The softmax is computed anew in each
pass: the logits are small enough to stay in the cache, and nothing but sums is stored. Names, and
how probabilities are held, are those of csrc/cpu/kernels/multi_loss.h; the formula is in
reference.py.
"""

import torch
import triton
import triton.language as tl

from genselfdiff.kernels.checks import check_dtype
from genselfdiff.kernels.launching import cdiv, launched
from genselfdiff.kernels.multi_loss import reference
from genselfdiff.kernels.tiles import tiles

_MERGED = 256  # runs that a merging program holds at once
_MERGED_IMAGES = 1024  # the same of all images: what one program waits for is memory
_STABILISER = tl.constexpr(reference.STABILISER)
_ERROR_SHARE = tl.constexpr(reference.ERROR_SHARE)
# What is kept of a run of pixels, of a plane in a run after each pass, and of a plane.
_PIXEL_SUMS = tl.constexpr(3)  # valid pixels, cross entropy, focal loss
_NEAR_ONE = tl.constexpr(reference.NEAR_ONE)
_FAINT = tl.constexpr(reference.FAINT)
_HIGHEST = tl.constexpr(0x7FFFFFFF)
# labelled pixels, mean and squares of x, number and sum of those near one, least and most p in and
# out of the label
_SPREAD = tl.constexpr(9)
_ERRORS = tl.constexpr(4)  # counted pixels, error, slope, slope where the label is this class
# mean, inverse, error at 2 * target + base (4), threshold, deviation, mean of the base, mean of x
# less what it was rounded to, standardised target in and out
_SHAPE = tl.constexpr(12)


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
    tile = tiles("multi_loss.pixels", logits)
    runs = cdiv(pixels, tile.run)
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
    constants = (pixel_form, focal_gamma, tile.run)
    statistics_kernel[(runs, n)](*image, pixel_sums, spread, *constants, **tile.options)
    standardise_kernel[(classes, n)](pixel_sums, spread, shapes, classes, runs, _MERGED)
    errors_kernel[(runs, n)](*image, shapes, errors, *constants, **tile.options)
    gather_kernel[(classes, n)](errors, totals, classes, runs, _MERGED)
    loss_kernel[(1,)](
        pixel_sums, totals, weights, loss, factors, n, classes, runs, pixel_form, _MERGED_IMAGES
    )
    gradient_kernel[(runs, n)](
        *image, shapes, pixel_sums, totals, factors, grad, runs, *constants, _MERGED,
        **tile.options,
    )  # fmt: skip
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
    """Largest logit, sum of the smaller ones' exponentials and with it, ln p of the true class.

    The latter is NaN if the label is no class.
    """
    peak = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    for c in range(1, classes):
        peak = tl.maximum(peak, _logit(at, class_stride, c, inside))
    others = tl.zeros_like(peak)
    peaks = tl.zeros_like(peak)
    true_logit = tl.where(label == -2, float("nan"), tl.zeros_like(peak))
    for c in range(0, classes):
        z = _logit(at, class_stride, c, inside) - peak
        others += tl.where(z == 0.0, 0.0, tl.exp(z))
        peaks += (z == 0.0).to(tl.float32)
        true_logit = tl.where(label == c, z, true_logit)
    total = others + peaks
    return peak, others, total, true_logit - tl.log(total)


@triton.jit
def _probability(at, class_stride, c, inside, peak, others, total):
    """What p is beyond its base, x, and the base, as an integer."""
    p = tl.exp(_logit(at, class_stride, c, inside) - peak) / total
    near_one = p > _NEAR_ONE
    return tl.where(near_one, -(others / total), p), near_one.to(tl.int32)


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


@launched
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
    peak, others, total, log_true = _softmax(at, class_stride, classes, inside, label)
    valid = label != -1
    count = tl.sum(valid.to(tl.float32))

    q = tl.zeros_like(log_true)
    for c in range(0, classes):
        x, near_one = _probability(at, class_stride, c, inside, peak, others, total)
        here, elsewhere = label == c, valid & (label != c)
        q = tl.where(here, (1 - near_one).to(tl.float32) - x, q)
        any_valid = tl.max(tl.where(valid, x, -float("inf")))  # a constant plane stays one
        apart = tl.where(valid, x - any_valid, 0.0)
        mean = tl.sum(apart) / tl.maximum(count, 1.0)
        apart = tl.where(valid, apart - mean, 0.0)
        high = valid & (near_one != 0)
        order = x.to(tl.int32, bitcast=True)
        # Triton 3.6 makes 0 of -0, and of its bits a number that is none of this order.
        order = tl.where(near_one != 0, ~order & _HIGHEST, order)
        to = spread + (image * _SPREAD * classes + c) * runs + run
        step = classes * runs
        tl.store(to, tl.sum(here.to(tl.float32)))
        tl.store(to + step, tl.where(count > 0.0, any_valid + mean, 0.0))
        tl.store(to + 2 * step, tl.sum(apart * apart))
        tl.store(to + 3 * step, tl.sum(high.to(tl.float32)))
        tl.store(to + 4 * step, tl.sum(tl.where(high, x, 0.0)))
        ends = to + 5 * step
        _store_order(ends, tl.min(tl.where(here, order, _HIGHEST)))
        _store_order(ends + step, tl.max(tl.where(here, order, -1)))
        _store_order(ends + 2 * step, tl.min(tl.where(elsewhere, order, _HIGHEST)))
        _store_order(ends + 3 * step, tl.max(tl.where(elsewhere, order, -1)))

    weight = tl.load(weights + label, mask=label >= 0, other=1.0)
    weighted = tl.where(valid, -log_true * weight, 0.0)
    focal = tl.where(valid, weighted * _power(q, GAMMA), 0.0)
    to = pixel_sums + image * _PIXEL_SUMS * runs + run
    tl.store(to, count)
    tl.store(to + runs, tl.sum(weighted))
    tl.store(to + 2 * runs, tl.sum(focal))


@triton.jit
def _store_order(to, order):
    tl.store(to, order.to(tl.float32, bitcast=True))


@triton.jit
def _load_order(at, inside):
    return tl.load(at, mask=inside, other=0.0).to(tl.int32, bitcast=True)


@triton.jit
def _deviation(squares, count):
    return tl.sqrt(tl.maximum(squares, 0.0) / tl.maximum(count - 1.0, 1.0))


@triton.jit
def _error_at_end(order, mean, inverse, at_zero, at_one):
    """Error of the p at that place in their order."""
    near_one = order > 0x3F800000  # the bits of 1.0
    x = tl.where(near_one, ~order, order).to(tl.float32, bitcast=True)
    return tl.abs(tl.where(near_one, at_one, at_zero) - (x - mean) * inverse)


@triton.jit
def _error_at(target, base, share, base_mean, ratio, rounded, inverse):
    moved = (target - base) - (share - base_mean) - rounded
    return (((target - share + _STABILISER) * ratio + moved) * inverse).to(tl.float32)


@launched
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
    valid = tl.zeros([BLOCK], tl.float64)
    labelled = tl.zeros([BLOCK], tl.float64)
    total = tl.zeros([BLOCK], tl.float64)
    near_one = tl.zeros([BLOCK], tl.float64)
    near_one_sum = tl.zeros([BLOCK], tl.float64)
    least_in = tl.full([BLOCK], _HIGHEST, tl.int32)
    most_in = tl.full([BLOCK], -1, tl.int32)
    least_out = tl.full([BLOCK], _HIGHEST, tl.int32)
    most_out = tl.full([BLOCK], -1, tl.int32)
    for start in range(0, runs, BLOCK):
        r = start + tl.arange(0, BLOCK)
        inside = r < runs
        count = tl.load(counts + r, mask=inside, other=0.0).to(tl.float64)
        valid += count
        labelled += tl.load(plane + r, mask=inside, other=0.0).to(tl.float64)
        total += count * tl.load(plane + step + r, mask=inside, other=0.0).to(tl.float64)
        near_one += tl.load(plane + 3 * step + r, mask=inside, other=0.0).to(tl.float64)
        near_one_sum += tl.load(plane + 4 * step + r, mask=inside, other=0.0).to(tl.float64)
        ends = plane + 5 * step + r
        least_in = tl.minimum(least_in, tl.where(inside, _load_order(ends, inside), _HIGHEST))
        most_in = tl.maximum(most_in, tl.where(inside, _load_order(ends + step, inside), -1))
        ends += 2 * step
        least_out = tl.minimum(least_out, tl.where(inside, _load_order(ends, inside), _HIGHEST))
        most_out = tl.maximum(most_out, tl.where(inside, _load_order(ends + step, inside), -1))
    count_all = tl.sum(valid)
    divisor = tl.maximum(count_all, 1.0)
    # About the first run's mean: where the others have the same, nothing is rounded.
    about = tl.load(plane + step).to(tl.float64)
    none = tl.load(counts) == 0.0
    about = tl.where(none, tl.sum(total) / divisor, about)
    shifts = tl.zeros([BLOCK], tl.float64)
    squares = tl.zeros([BLOCK], tl.float64)
    for start in range(0, runs, BLOCK):
        r = start + tl.arange(0, BLOCK)
        inside = r < runs
        count = tl.load(counts + r, mask=inside, other=0.0).to(tl.float64)
        apart = tl.load(plane + step + r, mask=inside, other=0.0).to(tl.float64) - about
        within = tl.load(plane + 2 * step + r, mask=inside, other=0.0).to(tl.float64)
        shifts += count * apart
        squares += within + count * apart * apart
    shift = tl.sum(shifts) / divisor
    centre = about + shift
    of_x = tl.maximum(tl.sum(squares) - count_all * shift * shift, 0.0)

    inside_all, high_all = tl.sum(labelled), tl.sum(near_one)
    share, base_mean = inside_all / divisor, high_all / divisor
    of_target, of_base = inside_all * (1.0 - share), high_all * (1.0 - base_mean)
    mixed = (high_all > 0.0) & (high_all < count_all)
    of_x += tl.where(mixed, 2.0 * (tl.sum(near_one_sum) - high_all * centre), 0.0)
    deviation = _deviation(of_base + of_x, divisor)
    target_deviation = _deviation(of_target, divisor)
    both = deviation + target_deviation
    apart = (of_base - of_target + of_x) / tl.maximum(divisor - 1.0, 1.0)
    ratio = tl.where(both > 0.0, apart / tl.where(both > 0.0, both, 1.0), 0.0)
    target_deviation += _STABILISER
    ratio /= target_deviation
    wide_inverse = 1.0 / (deviation + _STABILISER)
    mean, inverse = centre.to(tl.float32), wide_inverse.to(tl.float32)
    # What rounding the mean of x takes away is given back here.
    rounded = mean.to(tl.float64) - centre
    at_00 = _error_at(0.0, 0.0, share, base_mean, ratio, rounded, wide_inverse)
    at_01 = _error_at(0.0, 1.0, share, base_mean, ratio, rounded, wide_inverse)
    at_10 = _error_at(1.0, 0.0, share, base_mean, ratio, rounded, wide_inverse)
    at_11 = _error_at(1.0, 1.0, share, base_mean, ratio, rounded, wide_inverse)
    # The largest error lies at an end of the probabilities' range.
    in_a = _error_at_end(tl.min(least_in), mean, inverse, at_10, at_11)
    in_b = _error_at_end(tl.max(most_in), mean, inverse, at_10, at_11)
    out_a = _error_at_end(tl.min(least_out), mean, inverse, at_00, at_01)
    out_b = _error_at_end(tl.max(most_out), mean, inverse, at_00, at_01)
    largest = tl.where(inside_all > 0.0, tl.maximum(in_a, in_b), 0.0)
    largest = tl.where(
        inside_all < count_all, tl.maximum(largest, tl.maximum(out_a, out_b)), largest
    )
    to = shapes + image * _SHAPE * classes + c
    tl.store(to, mean)
    tl.store(to + classes, inverse)
    tl.store(to + 2 * classes, at_00)
    tl.store(to + 3 * classes, at_01)
    tl.store(to + 4 * classes, at_10)
    tl.store(to + 5 * classes, at_11)
    tl.store(to + 6 * classes, tl.maximum(largest * _ERROR_SHARE, _FAINT))
    tl.store(to + 7 * classes, deviation.to(tl.float32))
    tl.store(to + 8 * classes, base_mean.to(tl.float32))
    tl.store(to + 9 * classes, rounded.to(tl.float32))
    tl.store(to + 10 * classes, ((1.0 - share + _STABILISER) / target_deviation).to(tl.float32))
    tl.store(to + 11 * classes, ((0.0 - share + _STABILISER) / target_deviation).to(tl.float32))


@triton.jit
def _difference(shapes, image, c, classes, here, x, near_one):
    """Standardised target minus standardised probability, and the threshold."""
    shape = shapes + image * _SHAPE * classes + c
    low, high = 2 * classes, 3 * classes
    at_in = tl.where(near_one != 0, tl.load(shape + high + low), tl.load(shape + low + low))
    at_out = tl.where(near_one != 0, tl.load(shape + high), tl.load(shape + low))
    centred = (x - tl.load(shape)) * tl.load(shape + classes)
    return tl.where(here, at_in, at_out) - centred, tl.load(shape + 6 * classes)


@launched
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
    peak, others, total, log_true = _softmax(at, class_stride, classes, inside, label)
    for c in range(0, classes):
        x, near_one = _probability(at, class_stride, c, inside, peak, others, total)
        here = label == c
        d, threshold = _difference(shapes, image, c, classes, here, x, near_one)
        large = (tl.abs(d) > threshold) & (label != -1)
        if PIXEL_FORM:
            weight = tl.where(large & here, -log_true, 0.0)
        else:
            weight = large.to(tl.float32)
        slope = tl.where(d < 0.0, weight, -weight)
        to = errors + (image * _ERRORS * classes + c) * runs + run
        step = classes * runs
        tl.store(to, tl.sum(large.to(tl.float32)))
        tl.store(to + step, tl.sum(tl.where(weight != 0.0, weight * tl.abs(d), 0.0)))
        tl.store(to + 2 * step, tl.sum(slope))
        tl.store(to + 3 * step, tl.sum(tl.where(here, slope, 0.0)))


@launched
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


@launched
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
    zeros = tl.zeros([BLOCK], tl.float64)
    valid, cross_entropy, focal, counted, error = zeros, zeros, zeros, zeros, zeros
    for start in range(0, images * runs, BLOCK):
        i = start + tl.arange(0, BLOCK)
        inside = i < images * runs
        at = pixel_sums + (i // runs).to(tl.int64) * _PIXEL_SUMS * runs + i % runs
        valid += tl.load(at, mask=inside, other=0.0).to(tl.float64)
        cross_entropy += tl.load(at + runs, mask=inside, other=0.0).to(tl.float64)
        focal += tl.load(at + 2 * runs, mask=inside, other=0.0).to(tl.float64)
    for start in range(0, images * classes, BLOCK):
        i = start + tl.arange(0, BLOCK)
        inside = i < images * classes
        c = i % classes
        weight = tl.load(weights + c, mask=inside, other=0.0).to(tl.float64)
        if PIXEL_FORM:
            weight = weight * weight
        at = totals + (i // classes).to(tl.int64) * _ERRORS * classes + c
        counted += tl.load(at, mask=inside, other=0.0)
        error += weight * tl.load(at + classes, mask=inside, other=0.0)
    valid, counted = tl.maximum(tl.sum(valid), 1.0), tl.maximum(tl.sum(counted), 1.0)
    cross_entropy, error = tl.sum(cross_entropy) / valid, tl.sum(error) / counted
    focal = tl.sum(focal)
    if PIXEL_FORM:
        similarity, slope, by_cross_entropy = error, 1.0 / counted, tl.full([], 0.0, tl.float64)
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
    shapes, totals, weights, image, c, classes, count, slope, label, log_true, x, near_one,
    PIXEL_FORM: tl.constexpr,
):  # fmt: skip
    """Gradient of the structural term in p, and (pixel form) the pixel's weighted error."""
    here = label == c
    d, threshold = _difference(shapes, image, c, classes, here, x, near_one)
    counted = tl.abs(d) > threshold
    weight = tl.load(weights + c)
    sign = tl.where(d < 0.0, 1.0, -1.0)
    structural = tl.zeros_like(x)
    if PIXEL_FORM:
        weight = weight * weight
        counted = counted & here
        structural = tl.where(counted, tl.abs(d) * weight, 0.0)
        sign = -log_true * sign
    shape = shapes + image * _SHAPE * classes + c
    plane = totals + image * _ERRORS * classes + c
    deviation = tl.load(shape + 7 * classes)
    per_slope = slope * weight * tl.load(shape + classes)
    slopes, slopes_in = tl.load(plane + 2 * classes), tl.load(plane + 3 * classes)
    slope_mean = (slopes / count).to(tl.float32)
    # The sum of w s e_p, as e_p is the standardised target less the error.
    by_e = tl.load(plane + classes) + slopes_in * tl.load(shape + 10 * classes)
    by_e += (slopes - slopes_in) * tl.load(shape + 11 * classes)
    scaled = tl.maximum(count - 1.0, 1.0) * tl.maximum(deviation, 1e-30)
    by_e = tl.where(deviation > 0.0, (by_e / scaled).to(tl.float32), 0.0)
    centred = (x - tl.load(shape)) + tl.load(shape + 9 * classes)
    centred += near_one.to(tl.float32) - tl.load(shape + 8 * classes)
    return per_slope * (tl.where(counted, sign, 0.0) - slope_mean - centred * by_e), structural


@launched
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
    peak, others, total, log_true = _softmax(at, class_stride, classes, inside, label)
    valid = label != -1
    count = _sum_runs(pixel_sums + image * _PIXEL_SUMS * runs, runs, BLOCK)
    count = tl.maximum(count, 1.0)
    slope = tl.load(factors)

    # The mean of the slopes over the classes, less the slope of the class near one, if any.
    mean = tl.zeros([RUN], tl.float32)
    own = tl.zeros([RUN], tl.float32)
    x_own = tl.zeros([RUN], tl.float32)
    structural = tl.zeros([RUN], tl.float32)
    q = tl.zeros([RUN], tl.float32)
    for c in range(0, classes):
        x, near_one = _probability(at, class_stride, c, inside, peak, others, total)
        g, error = _in_p(
            shapes, totals, weights, image, c, classes, count, slope, label, log_true, x, near_one,
            PIXEL_FORM,
        )  # fmt: skip
        mean += tl.where(near_one != 0, 0.0, x * g)
        own = tl.where(near_one != 0, g, own)
        x_own = tl.where(near_one != 0, x, x_own)
        structural += error
        q = tl.where(label == c, (1 - near_one).to(tl.float32) - x, q)

    mean += x_own * own

    # d focal / d ln p of the true class, and that of the cross entropy, which is 1.
    by_log = _power(q, GAMMA)
    if GAMMA != 0.0:
        by_log -= _power(q, GAMMA - 1.0) * (1.0 - q) * log_true * GAMMA
    weight = tl.load(weights + label, mask=label >= 0, other=0.0)
    by_log = weight * (by_log * tl.load(factors + 2) + tl.load(factors + 1))
    if PIXEL_FORM:
        by_log += structural * tl.load(factors + 3)

    for c in range(0, classes):
        x, near_one = _probability(at, class_stride, c, inside, peak, others, total)
        g, _ = _in_p(
            shapes, totals, weights, image, c, classes, count, slope, label, log_true, x, near_one,
            PIXEL_FORM,
        )  # fmt: skip
        apart = x + (near_one - (label == c).to(tl.int32)).to(tl.float32)  # p - target
        result = (x + near_one.to(tl.float32)) * ((g - own) - mean) + by_log * apart
        result = tl.where(valid, result, 0.0)
        to = grad + (image * classes + c) * pixels + pixel
        tl.store(to, result.to(grad.dtype.element_ty), mask=inside)
