"""The forward kernels of the linear attention, in the order in which triton.py launches them.

The backward launches fold_kernel too.
"""

import triton
import triton.language as tl

from genselfdiff.kernels.launching import launched
from genselfdiff.kernels.linear_attention.triton_tiles import (
    channel_values,
    keys_and_values,
    matrix_tile,
    place,
    queries,
)


@launched
@triton.jit(do_not_specialize=["tokens", "run"])
def image_moments_kernel(
    x,
    parts,  # (N, runs, 2) float32: mean, and summed squared deviations from it, divided by C
    tokens,
    channels,
    run,
    BLOCK: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    first = tl.program_id(0) * run
    count = tl.minimum(tokens - first, run) * channels  # elements, which lie side by side
    begin = x + (image * tokens + first) * channels
    i = tl.arange(0, BLOCK)
    values = tl.load(begin + i, mask=i < count, other=0.0).to(tl.float32)
    near = tl.sum(values) / tl.minimum(count, BLOCK).to(tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    squares = tl.zeros([BLOCK], tl.float32)
    for start in range(0, count, BLOCK):
        i = start + tl.arange(0, BLOCK)
        values = tl.load(begin + i, mask=i < count, other=0.0).to(tl.float32)
        apart = tl.where(i < count, values - near, 0.0)
        total += apart
        squares += apart * apart
    shift = tl.sum(total)
    about_mean = tl.maximum(tl.sum(squares) - shift * shift / count.to(tl.float32), 0.0)
    to = parts + (image * tl.num_programs(0) + tl.program_id(0)) * 2
    tl.store(to, near + shift / count.to(tl.float32))
    tl.store(to + 1, about_mean / channels)


@launched
@triton.jit(do_not_specialize=["eps", "tokens", "runs", "run"])
def merge_image_moments_kernel(
    parts,  # (N, runs, 2) float32
    mean,  # (N) float32
    rstd,  # (N) float32
    eps,
    tokens,
    runs,
    run,
    BLOCK: tl.constexpr,
):
    image = tl.program_id(0).to(tl.int64)
    about = tl.load(parts + image * runs * 2).to(tl.float64)
    shifts = tl.zeros([BLOCK], tl.float64)
    squares = tl.zeros([BLOCK], tl.float64)
    for first in range(0, runs, BLOCK):
        r = first + tl.arange(0, BLOCK)
        count = tl.maximum(tl.minimum(tokens - r * run, run), 0).to(tl.float64)
        at = parts + (image * runs + r) * 2
        apart = tl.load(at, mask=r < runs, other=0.0).to(tl.float64) - about
        within = tl.load(at + 1, mask=r < runs, other=0.0).to(tl.float64)
        shifts += count * apart
        squares += within + count * apart * apart
    shift = tl.sum(shifts) / tokens.to(tl.float64)
    variance = tl.sum(squares) / tokens.to(tl.float64) - shift * shift
    tl.store(mean + image, (about + shift).to(tl.float32))
    tl.store(rstd + image, (1.0 / tl.sqrt(variance + eps)).to(tl.float32))


@launched
@triton.jit(do_not_specialize=["tokens", "run"])
def context_kernel(
    x,
    mean,  # (N) float32
    rstd,  # (N) float32
    norm_weight,  # (C)
    norm_bias,  # (C)
    qkv_weight,  # (3 * HEADS * D, C)
    peaks,  # (N, runs, HEADS * D) float32: largest k of the run
    sums,  # (N, runs, HEADS * D) float32: of exp(k - peak)
    parts,  # (N, runs, HEADS, D, D) float32: exp(k - peak)^T v
    tokens,
    channels,
    run,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    GROUP: tl.constexpr,  # heads of a program
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
    HELD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    image = tl.program_id(2).to(tl.int64)
    feature = tl.program_id(0) * GROUP * D + tl.arange(0, GROUP * D)
    hidden: tl.constexpr = HEADS * D
    k_held, v_held = qkv_weight, qkv_weight
    if HELD:
        c = tl.arange(0, BLOCK_C)
        k_held = matrix_tile(qkv_weight, hidden + feature, c, 2 * hidden, channels)
        v_held = matrix_tile(qkv_weight, 2 * hidden + feature, c, 3 * hidden, channels)
    peak = tl.full([GROUP * D], -float("inf"), tl.float32)
    total = tl.zeros([GROUP * D, 16], tl.float32)  # each column the same
    part = tl.zeros([GROUP * D, GROUP * D], tl.float32)  # of which each head's own is kept
    kind = x.dtype.element_ty
    # The matrix units add up over tokens faster than threads do.
    one = tl.full([BLOCK_T, 16], 1.0, tl.float32).to(kind)
    begin = tl.program_id(1) * run
    for first in range(begin, tl.minimum(begin + run, tokens), BLOCK_T):
        k, v = keys_and_values(
            x, mean, rstd, norm_weight, norm_bias, qkv_weight, k_held, v_held, image, first, tokens,
            channels, feature, hidden, BLOCK_T, BLOCK_C, HELD, PRECISION,
        )  # fmt: skip
        here = first + tl.arange(0, BLOCK_T) < tokens
        k = tl.where(here[:, None], k, -float("inf"))
        higher = tl.maximum(peak, tl.max(k, axis=0))
        shrink = tl.exp(peak - higher)
        k = tl.trans(tl.exp(k - higher[None, :]).to(kind))
        total = tl.dot(k, one, total * shrink[:, None], input_precision=PRECISION)
        part = tl.dot(k, v.to(kind), part * shrink[:, None], input_precision=PRECISION)
        peak = higher
    known = feature < hidden
    row = (image * tl.num_programs(1) + tl.program_id(1)) * hidden + feature
    tl.store(peaks + row, peak, mask=known)
    tl.store(sums + row, tl.max(total, axis=1), mask=known)
    own = (feature // D)[:, None] == (feature // D)[None, :]
    to = parts + row[:, None] * D + (feature % D)[None, :]
    tl.store(to, part, mask=own & known[:, None])


@launched
@triton.jit(do_not_specialize=["runs"])
def merge_context_kernel(
    peaks,  # (N, runs, heads * D) float32
    sums,  # (N, runs, heads * D) float32
    parts,  # (N, runs, heads, D, D) float32
    k_lse,  # (N, heads * D) float32
    context,  # (N, heads, D, D) float32
    runs,
    D: tl.constexpr,
    ROWS: tl.constexpr,
):
    hidden = tl.num_programs(0) * D
    row = tl.program_id(0) * D + tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    image = tl.program_id(2).to(tl.int64)
    peak = tl.full([ROWS], -float("inf"), tl.float32)
    for first in range(0, runs, ROWS):
        run = first + tl.arange(0, ROWS)
        at = (image * runs + run[:, None]) * hidden + row[None, :]
        found = tl.load(peaks + at, mask=(run < runs)[:, None], other=-float("inf"))
        peak = tl.maximum(peak, tl.max(found, axis=0))
    total = tl.zeros([ROWS], tl.float32)
    merged = tl.zeros([ROWS, D], tl.float32)
    for first in range(0, runs, ROWS):
        run = first + tl.arange(0, ROWS)
        inside = (run < runs)[:, None]
        at = (image * runs + run[:, None]) * hidden + row[None, :]
        found = tl.load(peaks + at, mask=inside, other=-float("inf"))
        weight = tl.exp(found - peak[None, :])
        total += tl.sum(weight * tl.load(sums + at, mask=inside, other=0.0), axis=0)
        part = tl.load(
            parts + at[:, :, None] * D + tl.arange(0, D)[None, None, :],
            mask=inside[:, :, None],
            other=0.0,
        )
        merged += tl.sum(weight[:, :, None] * part, axis=0)
    to = image * hidden + row
    tl.store(k_lse + to, peak + tl.log(total))
    tl.store(context + to[:, None] * D + tl.arange(0, D)[None, :], merged / total[:, None])


@launched
@triton.jit(do_not_specialize=["scale"])
def fold_kernel(
    context,  # (N, HEADS, D, D) float32
    out_weight,  # (C, HEADS * D), in the dtype of x
    folded,  # (N, HEADS * D, C), in the dtype of x
    scale,
    channels,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    head, image = tl.program_id(0), tl.program_id(2).to(tl.int64)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    feature = tl.arange(0, D)
    row = (image * HEADS + head) * D + feature
    values = tl.load(context + row[:, None] * D + feature[None, :])
    at = c[None, :] * HEADS * D + head * D + feature[:, None]
    out = tl.load(out_weight + at, mask=(c < channels)[None, :], other=0.0).to(tl.float32)
    result = scale * tl.dot(values, out, input_precision="ieee")
    to = folded + row[:, None] * channels + c[None, :]
    tl.store(to, result.to(folded.dtype.element_ty), mask=(c < channels)[None, :])


@launched
@triton.jit(do_not_specialize=["tokens", "run"])
def output_moments_kernel(
    x,
    mean,  # (N) float32
    rstd,  # (N) float32
    norm_weight,  # (C)
    norm_bias,  # (C)
    qkv_weight,  # (3 * HEADS * D, C)
    folded,  # (N, HEADS * D, C)
    out_bias,  # (C)
    parts,  # (N, runs, 2) float32: mean, and summed squared deviations from it, divided by C
    tokens,
    channels,
    run,
    HEADS: tl.constexpr,
    SLOTS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
    HELD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    feature = tl.arange(0, SLOTS * D)
    of_image = folded + image * HEADS * D * channels
    q_held, m_held = qkv_weight, folded
    last = channels
    if HELD:
        c = tl.arange(0, BLOCK_C)
        q_held = matrix_tile(qkv_weight, feature, c, HEADS * D, channels)
        m_held = matrix_tile(of_image, feature, c, HEADS * D, channels)
        last = BLOCK_C
    centre = tl.full([], 0.0, tl.float32)
    squares = tl.full([], 0.0, tl.float32)
    before = tl.full([], 0.0, tl.float32)
    begin = tl.program_id(0) * run
    end = tl.minimum(begin + run, tokens)
    for first in range(begin, end, BLOCK_T):
        q = queries(
            x, mean, rstd, norm_weight, norm_bias, qkv_weight, q_held, image, first, tokens,
            channels, HEADS, SLOTS, D, BLOCK_T, BLOCK_C, HELD, PRECISION,
        ).to(folded.dtype.element_ty)  # fmt: skip
        rows = tl.minimum(end - first, BLOCK_T).to(tl.float32)
        here = first + tl.arange(0, BLOCK_T) < end
        for of_c in range(0, last, BLOCK_C):
            c = of_c + tl.arange(0, BLOCK_C)
            if HELD:
                m = m_held
            else:
                m = matrix_tile(of_image, feature, c, HEADS * D, channels)
            o = tl.dot(q, m, input_precision=PRECISION)
            o += channel_values(out_bias, c, channels)[None, :]
            inside = here[:, None] & (c < channels)[None, :]
            more = rows * tl.minimum(channels - of_c, BLOCK_C).to(tl.float32)
            found = tl.sum(tl.where(inside, o, 0.0)) / more
            apart = tl.where(inside, o - found, 0.0)
            share = more / (before + more)
            squares += tl.sum(apart * apart) + (found - centre) * (found - centre) * before * share
            centre += (found - centre) * share
            before += more
    to = (image * tl.num_programs(0) + tl.program_id(0)) * 2
    tl.store(parts + to, centre)
    tl.store(parts + to + 1, squares / channels)


@launched
@triton.jit(do_not_specialize=["tokens", "run"])
def output_kernel(
    x,
    mean,  # (N) float32
    rstd,  # (N) float32
    norm_weight,  # (C)
    norm_bias,  # (C)
    qkv_weight,  # (3 * HEADS * D, C)
    folded,  # (N, HEADS * D, C)
    out_bias,  # (C)
    out_mean,  # (N) float32
    out_rstd,  # (N) float32
    out_norm_weight,  # (C)
    out_norm_bias,  # (C)
    y,
    tokens,
    channels,
    run,
    HEADS: tl.constexpr,
    SLOTS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
    HELD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    feature = tl.arange(0, SLOTS * D)
    of_image = folded + image * HEADS * D * channels
    q_held, m_held = qkv_weight, folded
    last = channels
    if HELD:
        c = tl.arange(0, BLOCK_C)
        q_held = matrix_tile(qkv_weight, feature, c, HEADS * D, channels)
        m_held = matrix_tile(of_image, feature, c, HEADS * D, channels)
        last = BLOCK_C
    centre, scale = tl.load(out_mean + image), tl.load(out_rstd + image)
    begin = tl.program_id(0) * run
    for first in range(begin, tl.minimum(begin + run, tokens), BLOCK_T):
        q = queries(
            x, mean, rstd, norm_weight, norm_bias, qkv_weight, q_held, image, first, tokens,
            channels, HEADS, SLOTS, D, BLOCK_T, BLOCK_C, HELD, PRECISION,
        ).to(folded.dtype.element_ty)  # fmt: skip
        for of_c in range(0, last, BLOCK_C):
            c = of_c + tl.arange(0, BLOCK_C)
            if HELD:
                m = m_held
            else:
                m = matrix_tile(of_image, feature, c, HEADS * D, channels)
            o = tl.dot(q, m, input_precision=PRECISION)
            o += channel_values(out_bias, c, channels)[None, :]
            gain = channel_values(out_norm_weight, c, channels)
            offset = channel_values(out_norm_bias, c, channels)
            start, at, inside = place(image, first, c, tokens, channels, channels, BLOCK_T)
            values = tl.load(x + start + at, mask=inside, other=0.0).to(tl.float32)
            result = values + ((o - centre) * scale * gain[None, :] + offset[None, :])
            tl.store(y + start + at, result.to(y.dtype.element_ty), mask=inside)
