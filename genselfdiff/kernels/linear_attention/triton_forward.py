"""The forward kernels of the linear attention, in the order in which triton.py launches them.

The backward launches fold_kernel too.
"""

import triton
import triton.language as tl

from genselfdiff.kernels.linear_attention.triton_tiles import output_tile, project, queries


@triton.jit(do_not_specialize=["tokens"])
def context_kernel(
    x,
    mean,  # (N) float32
    rstd,  # (N) float32
    norm_weight,  # (C) float32
    norm_bias,  # (C) float32
    qkv_weight,  # (3 * HEADS * D, C), in the dtype of x
    peaks,  # (N, runs, HEADS * D) float32: largest k of the run
    sums,  # (N, runs, HEADS * D) float32: of exp(k - peak)
    parts,  # (N, runs, HEADS, D, D) float32: exp(k - peak)^T v
    tokens,
    channels,
    HEADS: tl.constexpr,
    SLOTS: tl.constexpr,
    D: tl.constexpr,
    RUN: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PRECISION: tl.constexpr,
):
    head, run, image = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    k_rows = (HEADS + head) * D + tl.arange(0, D)
    v_rows = (2 * HEADS + head) * D + tl.arange(0, D)
    peak = tl.full([D], -float("inf"), tl.float32)
    total = tl.zeros([D], tl.float32)
    part = tl.zeros([D, D], tl.float32)
    for first in range(run * RUN, tl.minimum(run * RUN + RUN, tokens), BLOCK_T):
        t = first + tl.arange(0, BLOCK_T)
        k = project(
            x, mean, rstd, norm_weight, norm_bias, qkv_weight, image, t, tokens, channels,
            k_rows, 3 * HEADS * D, BLOCK_C, PRECISION,
        )  # fmt: skip
        v = project(
            x, mean, rstd, norm_weight, norm_bias, qkv_weight, image, t, tokens, channels,
            v_rows, 3 * HEADS * D, BLOCK_C, PRECISION,
        )  # fmt: skip
        k = tl.where((t < tokens)[:, None], k, -float("inf"))
        higher = tl.maximum(peak, tl.max(k, axis=0))
        shrink = tl.exp(peak - higher)
        k = tl.exp(k - higher[None, :])
        total = total * shrink + tl.sum(k, axis=0)
        kind = x.dtype.element_ty
        part = tl.dot(
            tl.trans(k).to(kind), v.to(kind), part * shrink[:, None], input_precision=PRECISION
        )
        peak = higher
    slot = image * tl.num_programs(1) + run
    to = slot * HEADS * D + head * D + tl.arange(0, D)
    tl.store(peaks + to, peak)
    tl.store(sums + to, total)
    tl.store(parts + to[:, None] * D + tl.arange(0, D)[None, :], part)


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


@triton.jit(do_not_specialize=["tokens"])
def output_moments_kernel(
    x,
    mean,  # (N) float32
    rstd,  # (N) float32
    norm_weight,  # (C) float32
    norm_bias,  # (C) float32
    qkv_weight,  # (3 * HEADS * D, C), in the dtype of x
    folded,  # (N, HEADS * D, C), in the dtype of x
    out_bias,  # (C) float32
    parts,  # (N, tiles, 2) float32: mean, and summed squared deviations from it, divided by C
    tokens,
    channels,
    HEADS: tl.constexpr,
    SLOTS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PRECISION: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    t = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    q = queries(
        x, mean, rstd, norm_weight, norm_bias, qkv_weight, image, t, tokens, channels,
        HEADS, SLOTS, D, BLOCK_C, PRECISION,
    )  # fmt: skip
    rows = tl.minimum(tokens - tl.program_id(0) * BLOCK_T, BLOCK_T).to(tl.float32)
    centre = tl.full([], 0.0, tl.float32)
    squares = tl.full([], 0.0, tl.float32)
    before = tl.full([], 0.0, tl.float32)
    for first in range(0, channels, BLOCK_C):
        c = first + tl.arange(0, BLOCK_C)
        o, _ = output_tile(q, folded, out_bias, image, c, channels, HEADS, SLOTS, D, PRECISION)
        inside = (t < tokens)[:, None] & (c < channels)[None, :]
        more = rows * tl.minimum(channels - first, BLOCK_C).to(tl.float32)
        found = tl.sum(tl.where(inside, o, 0.0)) / more
        apart = tl.where(inside, o - found, 0.0)
        share = more / (before + more)
        squares += tl.sum(apart * apart) + (found - centre) * (found - centre) * before * share
        centre += (found - centre) * share
        before += more
    to = (image * tl.num_programs(0) + tl.program_id(0)) * 2
    tl.store(parts + to, centre)
    tl.store(parts + to + 1, squares / channels)  # as if of one channel, for merge_moments_kernel


@triton.jit(do_not_specialize=["tokens"])
def output_kernel(
    x,
    mean,  # (N) float32
    rstd,  # (N) float32
    norm_weight,  # (C) float32
    norm_bias,  # (C) float32
    qkv_weight,  # (3 * HEADS * D, C), in the dtype of x
    folded,  # (N, HEADS * D, C), in the dtype of x
    out_bias,  # (C) float32
    out_mean,  # (N) float32
    out_rstd,  # (N) float32
    out_norm_weight,  # (C) float32
    out_norm_bias,  # (C) float32
    y,
    tokens,
    channels,
    HEADS: tl.constexpr,
    SLOTS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PRECISION: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    t = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    q = queries(
        x, mean, rstd, norm_weight, norm_bias, qkv_weight, image, t, tokens, channels,
        HEADS, SLOTS, D, BLOCK_C, PRECISION,
    )  # fmt: skip
    centre, scale = tl.load(out_mean + image), tl.load(out_rstd + image)
    for first in range(0, channels, BLOCK_C):
        c = first + tl.arange(0, BLOCK_C)
        here = c < channels
        o, _ = output_tile(q, folded, out_bias, image, c, channels, HEADS, SLOTS, D, PRECISION)
        gain = tl.load(out_norm_weight + c, mask=here, other=0.0)
        offset = tl.load(out_norm_bias + c, mask=here, other=0.0)
        inside = (t < tokens)[:, None] & here[None, :]
        at = (image * tokens + t[:, None]) * channels + c[None, :]
        values = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        result = values + ((o - centre) * scale * gain[None, :] + offset[None, :])
        tl.store(y + at, result.to(y.dtype.element_ty), mask=inside)
