"""The backward kernels of the linear attention, in the order in which triton.py launches them."""

import triton
import triton.language as tl

from genselfdiff.kernels.linear_attention.triton_tiles import (
    matrix_tile,
    normed_tile,
    output_tile,
    project,
    queries,
)


@triton.jit(do_not_specialize=["tokens"])
def output_sums_kernel(
    grad_y,
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
    products,  # (N, runs, 2, HEADS * D, C) float32: Q^T grad_y, Q^T normed
    sums,  # (N, runs, 3, C) float32: of grad_y, grad_y * normed, normed
    q_sums,  # (N, runs, HEADS * D) float32
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
    run, image = tl.program_id(0), tl.program_id(2).to(tl.int64)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    feature = tl.arange(0, SLOTS * D)
    by_grad = tl.zeros([SLOTS * D, BLOCK_C], tl.float32)
    by_normed = tl.zeros([SLOTS * D, BLOCK_C], tl.float32)
    q_sum = tl.zeros([SLOTS * D], tl.float32)
    y_sum = tl.zeros([BLOCK_C], tl.float32)
    y_normed_sum = tl.zeros([BLOCK_C], tl.float32)
    normed_sum = tl.zeros([BLOCK_C], tl.float32)
    centre, scale = tl.load(out_mean + image), tl.load(out_rstd + image)
    kind = x.dtype.element_ty
    for first in range(run * RUN, tl.minimum(run * RUN + RUN, tokens), BLOCK_T):
        t = first + tl.arange(0, BLOCK_T)
        q = queries(
            x, mean, rstd, norm_weight, norm_bias, qkv_weight, image, t, tokens, channels,
            HEADS, SLOTS, D, BLOCK_C, PRECISION,
        )  # fmt: skip
        q = tl.where((t < tokens)[:, None], q, 0.0)
        o, _ = output_tile(q, folded, out_bias, image, c, channels, HEADS, SLOTS, D, PRECISION)
        inside = (t < tokens)[:, None] & (c < channels)[None, :]
        normed = tl.where(inside, (o - centre) * scale, 0.0)
        at = (image * tokens + t[:, None]) * channels + c[None, :]
        g = tl.load(grad_y + at, mask=inside, other=0.0)
        q_t = tl.trans(q).to(kind)
        by_grad = tl.dot(q_t, g, by_grad, input_precision=PRECISION)
        by_normed = tl.dot(q_t, normed.to(kind), by_normed, input_precision=PRECISION)
        q_sum += tl.sum(q, axis=0)
        wide = g.to(tl.float32)
        y_sum += tl.sum(wide, axis=0)
        y_normed_sum += tl.sum(wide * normed, axis=0)
        normed_sum += tl.sum(normed, axis=0)
    slot = image * tl.num_programs(0) + run
    known = feature < HEADS * D
    here = c < channels
    to = products + (slot * 2 * HEADS * D + feature[:, None]) * channels + c[None, :]
    inside = known[:, None] & here[None, :]
    tl.store(to, by_grad, mask=inside)
    tl.store(to + HEADS * D * channels, by_normed, mask=inside)
    to = sums + slot * 3 * channels + c
    tl.store(to, y_sum, mask=here)
    tl.store(to + channels, y_normed_sum, mask=here)
    tl.store(to + 2 * channels, normed_sum, mask=here)
    if tl.program_id(1) == 0:
        tl.store(q_sums + slot * HEADS * D + feature, q_sum, mask=known)


@triton.jit(do_not_specialize=["tokens"])
def qkv_gradient_kernel(
    grad_y,
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
    out_gain,  # (C) float32
    flat,  # (N) float32: mean of grad_y * gain
    along,  # (N) float32: mean of grad_y * gain * normed
    k_lse,  # (N, HEADS * D) float32
    grad_context,  # (N, HEADS, D, D), in the dtype of x
    k_terms,  # (N, HEADS * D) float32: sums over e of context * grad_context
    grad_qkv,  # (N, tokens, 3 * HEADS * D), in the dtype of x
    grad_x,  # what there is of it before the first norm's means are known
    by_norm,  # (N, tiles, 2, C) float32: sums of grad_normed, grad_normed * normed
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
    here_t = (t < tokens)[:, None]
    feature = tl.arange(0, SLOTS * D)
    known = feature < HEADS * D
    kind = x.dtype.element_ty
    hidden: tl.constexpr = HEADS * D

    q = queries(
        x, mean, rstd, norm_weight, norm_bias, qkv_weight, image, t, tokens, channels,
        HEADS, SLOTS, D, BLOCK_C, PRECISION,
    )  # fmt: skip
    centre, scale = tl.load(out_mean + image), tl.load(out_rstd + image)
    flat_mean, along_mean = tl.load(flat + image), tl.load(along + image)
    grad_q = tl.zeros([BLOCK_T, SLOTS * D], tl.float32)
    for first in range(0, channels, BLOCK_C):
        c = first + tl.arange(0, BLOCK_C)
        o, m = output_tile(q, folded, out_bias, image, c, channels, HEADS, SLOTS, D, PRECISION)
        inside = here_t & (c < channels)[None, :]
        at = (image * tokens + t[:, None]) * channels + c[None, :]
        g = tl.load(grad_y + at, mask=inside, other=0.0).to(tl.float32)
        gain = tl.load(out_gain + c, mask=c < channels, other=0.0)
        normed = (o - centre) * scale
        grad_o = scale * (g * gain[None, :] - flat_mean - normed * along_mean)
        grad_o = tl.where(inside, grad_o, 0.0).to(kind)
        grad_q = tl.dot(grad_o, tl.trans(m), grad_q, input_precision=PRECISION)
    inner = tl.sum(tl.reshape(q * grad_q, [BLOCK_T, SLOTS, D]), axis=2)
    grad_q = tl.reshape(grad_q, [BLOCK_T, SLOTS, D]) - inner[:, :, None]
    grad_q = (q * tl.reshape(grad_q, [BLOCK_T, SLOTS * D])).to(kind)

    k = project(
        x, mean, rstd, norm_weight, norm_bias, qkv_weight, image, t, tokens, channels,
        hidden + feature, 2 * hidden, BLOCK_C, PRECISION,
    )  # fmt: skip
    lse = tl.load(k_lse + image * hidden + feature, mask=known, other=float("inf"))
    k = tl.where(here_t, tl.exp(k - lse[None, :]), 0.0)
    v = project(
        x, mean, rstd, norm_weight, norm_bias, qkv_weight, image, t, tokens, channels,
        2 * hidden + feature, 3 * hidden, BLOCK_C, PRECISION,
    )  # fmt: skip
    same_head = (feature // D)[:, None] == (feature // D)[None, :]
    pair = (image * hidden + feature)[:, None] * D + (feature % D)[None, :]
    by_context = tl.load(grad_context + pair, mask=same_head & known[:, None], other=0.0)
    terms = tl.load(k_terms + image * hidden + feature, mask=known, other=0.0)
    grad_k = tl.dot(v.to(kind), tl.trans(by_context), input_precision=PRECISION)
    grad_k = (k * (grad_k - terms[None, :])).to(kind)
    grad_v = tl.dot(k.to(kind), by_context, input_precision=PRECISION).to(kind)

    of_qkv = grad_qkv + (image * tokens + t[:, None]) * 3 * hidden + feature[None, :]
    here = here_t & known[None, :]
    tl.store(of_qkv, grad_q, mask=here)
    tl.store(of_qkv + hidden, grad_k, mask=here)
    tl.store(of_qkv + 2 * hidden, grad_v, mask=here)

    slope = tl.load(rstd + image)
    for first in range(0, channels, BLOCK_C):
        c = first + tl.arange(0, BLOCK_C)
        w = matrix_tile(qkv_weight, feature, c, hidden, channels)
        g = tl.dot(grad_q, w, input_precision=PRECISION)
        w = matrix_tile(qkv_weight + hidden * channels, feature, c, hidden, channels)
        g = tl.dot(grad_k, w, g, input_precision=PRECISION)
        w = matrix_tile(qkv_weight + 2 * hidden * channels, feature, c, hidden, channels)
        g = tl.dot(grad_v, w, g, input_precision=PRECISION)
        _, at, inside, centred = normed_tile(
            x, mean, rstd, norm_weight, norm_bias, image, t, c, tokens, channels
        )
        to = by_norm + (image * tl.num_programs(0) + tl.program_id(0)) * 2 * channels + c
        g_centred = tl.sum(tl.where(inside, g * centred, 0.0), axis=0)
        tl.store(to, tl.sum(g, axis=0), mask=c < channels)
        tl.store(to + channels, g_centred, mask=c < channels)
        gain = tl.load(norm_weight + c, mask=c < channels, other=0.0)
        upstream = tl.load(grad_y + at, mask=inside, other=0.0).to(tl.float32)
        result = upstream + slope * gain[None, :] * g
        tl.store(grad_x + at, result.to(kind), mask=inside)


@triton.jit(do_not_specialize=["tokens", "runs"])
def weight_gradient_kernel(
    grad_qkv,  # (N, tokens, rows), in the dtype of x
    x,
    mean,  # (N) float32
    rstd,  # (N) float32
    norm_weight,  # (C) float32
    norm_bias,  # (C) float32
    parts,  # (N, runs, rows, C) float32
    tokens,
    channels,
    rows,
    runs,
    RUN: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PRECISION: tl.constexpr,
):
    row = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    slot = tl.program_id(2).to(tl.int64)
    image, run = slot // runs, (slot % runs).to(tl.int32)
    total = tl.zeros([BLOCK_C, BLOCK_C], tl.float32)
    for first in range(run * RUN, tl.minimum(run * RUN + RUN, tokens), BLOCK_T):
        t = first + tl.arange(0, BLOCK_T)
        normed, _, _, _ = normed_tile(
            x, mean, rstd, norm_weight, norm_bias, image, t, c, tokens, channels
        )
        at = (image * tokens + t[None, :]) * rows + row[:, None]
        inside = (t < tokens)[None, :] & (row < rows)[:, None]
        g = tl.load(grad_qkv + at, mask=inside, other=0.0)
        total = tl.dot(g, normed.to(g.dtype), total, input_precision=PRECISION)
    to = parts + (slot * rows + row[:, None]) * channels + c[None, :]
    tl.store(to, total, mask=(row < rows)[:, None] & (c < channels)[None, :])


@triton.jit(do_not_specialize=["tokens"])
def input_gradient_kernel(
    x,
    mean,  # (N) float32
    rstd,  # (N) float32
    means,  # (N, 2) float32: of grad_normed * gain, and of that times normed
    grad_x,
    tokens,
    channels,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    image = tl.program_id(2).to(tl.int64)
    t = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = (t < tokens)[:, None] & (c < channels)[None, :]
    at = (image * tokens + t[:, None]) * channels + c[None, :]
    scale = tl.load(rstd + image)
    normed = (
        tl.load(x + at, mask=inside, other=0.0).to(tl.float32) - tl.load(mean + image)
    ) * scale
    g = tl.load(grad_x + at, mask=inside, other=0.0).to(tl.float32)
    flat, along = tl.load(means + 2 * image), tl.load(means + 2 * image + 1)
    result = g - scale * (flat + normed * along)
    tl.store(grad_x + at, result.to(grad_x.dtype.element_ty), mask=inside)
