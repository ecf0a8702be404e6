"""The backward kernels of the linear attention, in the order in which triton.py launches them."""

import triton
import triton.language as tl

from genselfdiff.kernels.launching import launched
from genselfdiff.kernels.linear_attention.triton_tiles import (
    channel_values,
    keys_and_values,
    matrix_tile,
    normed_tile,
    place,
    queries,
)


@launched
@triton.jit(do_not_specialize=["tokens", "run"])
def queries_kernel(
    x,
    mean,  # (N) float32
    rstd,  # (N) float32
    norm_weight,  # (C)
    norm_bias,  # (C)
    qkv_weight,  # (3 * HEADS * D, C)
    stored,  # (N, tokens, HEADS * D), in the dtype of x: Q, the softmax of q
    tokens,
    channels,
    run,
    HEADS: tl.constexpr,
    SLOTS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PRECISION: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    feature = tl.arange(0, SLOTS * D)
    begin = tl.program_id(0) * run
    for first in range(begin, tl.minimum(begin + run, tokens), BLOCK_T):
        q = queries(
            x, mean, rstd, norm_weight, norm_bias, qkv_weight, qkv_weight, image, first, tokens,
            channels, HEADS, SLOTS, D, BLOCK_T, BLOCK_C, False, PRECISION,
        )  # fmt: skip
        start, at, inside = place(image, first, feature, tokens, HEADS * D, HEADS * D, BLOCK_T)
        tl.store(stored + start + at, q.to(stored.dtype.element_ty), mask=inside)


@triton.jit
def _queries(
    x, mean, rstd, norm_weight, norm_bias, weight, held, stored, image, first, tokens, channels,
    HEADS: tl.constexpr, SLOTS: tl.constexpr, D: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr, HELD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Q of a tile, zero beyond the image: made of x with the matrix that is held, or loaded."""
    if HELD:
        q = queries(
            x, mean, rstd, norm_weight, norm_bias, weight, held, image, first, tokens, channels,
            HEADS, SLOTS, D, BLOCK_T, BLOCK_C, HELD, PRECISION,
        )  # fmt: skip
        q = tl.where((first + tl.arange(0, BLOCK_T) < tokens)[:, None], q, 0.0)
    else:
        feature = tl.arange(0, SLOTS * D)
        start, at, inside = place(image, first, feature, tokens, HEADS * D, HEADS * D, BLOCK_T)
        q = tl.load(stored + start + at, mask=inside, other=0.0).to(tl.float32)
    return q


@launched
@triton.jit(do_not_specialize=["tokens", "run"])
def output_sums_kernel(
    grad_y,
    x,
    mean,  # (N) float32
    rstd,  # (N) float32
    norm_weight,  # (C)
    norm_bias,  # (C)
    qkv_weight,  # (3 * HEADS * D, C)
    stored,  # (N, tokens, HEADS * D), unless HELD: Q
    folded,  # (N, HEADS * D, C)
    out_bias,  # (C)
    out_mean,  # (N) float32
    out_rstd,  # (N) float32
    products,  # (N, runs, 2, HEADS * D, C) float32: Q^T grad_y, Q^T normed
    sums,  # (N, runs, 3, C) float32: of grad_y, grad_y * normed, normed
    q_sums,  # (N, runs, HEADS * D) float32
    tokens,
    channels,
    run,
    HEADS: tl.constexpr,
    SLOTS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_Q: tl.constexpr,  # channels that Q is made of at once; where HELD, all of them
    HELD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    image = tl.program_id(2).to(tl.int64)
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    feature = tl.arange(0, SLOTS * D)
    hidden: tl.constexpr = HEADS * D
    q_held = qkv_weight
    if HELD:
        q_held = matrix_tile(qkv_weight, feature, tl.arange(0, BLOCK_Q), hidden, channels)
    m = matrix_tile(folded + image * hidden * channels, feature, c, hidden, channels)
    bias = channel_values(out_bias, c, channels)
    by_grad = tl.zeros([SLOTS * D, BLOCK_C], tl.float32)
    by_normed = tl.zeros([SLOTS * D, BLOCK_C], tl.float32)
    by_one = tl.zeros([SLOTS * D, 16], tl.float32)
    y_sum = tl.zeros([BLOCK_C], tl.float32)
    centre, scale = tl.load(out_mean + image), tl.load(out_rstd + image)
    kind = x.dtype.element_ty
    # The matrix units add up over tokens faster than threads do.
    one = tl.full([BLOCK_T, 16], 1.0, tl.float32).to(kind)
    begin = tl.program_id(1) * run
    for first in range(begin, tl.minimum(begin + run, tokens), BLOCK_T):
        q = _queries(
            x, mean, rstd, norm_weight, norm_bias, qkv_weight, q_held, stored, image, first, tokens,
            channels, HEADS, SLOTS, D, BLOCK_T, BLOCK_Q, HELD, PRECISION,
        )  # fmt: skip
        q = q.to(kind)
        o = tl.dot(q, m, input_precision=PRECISION) + bias[None, :]
        start, at, inside = place(image, first, c, tokens, channels, channels, BLOCK_T)
        normed = tl.where(inside, (o - centre) * scale, 0.0)
        g = tl.load(grad_y + start + at, mask=inside, other=0.0)
        by_grad = tl.dot(tl.trans(q), g, by_grad, input_precision=PRECISION)
        by_normed = tl.dot(tl.trans(q), normed.to(kind), by_normed, input_precision=PRECISION)
        by_one = tl.dot(tl.trans(q), one, by_one, input_precision=PRECISION)
        y_sum += tl.sum(g.to(tl.float32), axis=0)
    q_sum = tl.max(by_one, axis=1)
    # The output is linear in Q, and so are its sums. The matrix is read anew: it had no registers.
    to = folded + image * hidden * channels + feature[:, None] * channels + c[None, :]
    inside = (feature < hidden)[:, None] & (c < channels)[None, :]
    m = tl.load(to, mask=inside, other=0.0, volatile=True)
    count = tl.minimum(tokens - begin, run).to(tl.float32)
    apart = bias - centre
    normed_sum = scale * (tl.sum(q_sum[:, None] * m.to(tl.float32), axis=0) + count * apart)
    y_normed_sum = scale * (tl.sum(by_grad * m.to(tl.float32), axis=0) + y_sum * apart)
    slot = image * tl.num_programs(1) + tl.program_id(1)
    known = feature < hidden
    here = c < channels
    to = products + (slot * 2 * hidden + feature[:, None]) * channels + c[None, :]
    inside = known[:, None] & here[None, :]
    tl.store(to, by_grad, mask=inside)
    tl.store(to + hidden * channels, by_normed, mask=inside)
    to = sums + slot * 3 * channels + c
    tl.store(to, y_sum, mask=here)
    tl.store(to + channels, y_normed_sum, mask=here)
    tl.store(to + 2 * channels, normed_sum, mask=here)
    if tl.program_id(0) == 0:
        tl.store(q_sums + slot * hidden + feature, q_sum, mask=known)


@launched
@triton.jit(do_not_specialize=["tokens", "run"])
def query_gradient_kernel(
    grad_y,
    x,
    mean,  # (N) float32
    rstd,  # (N) float32
    norm_weight,  # (C)
    norm_bias,  # (C)
    qkv_weight,  # (3 * HEADS * D, C)
    stored,  # (N, tokens, HEADS * D), unless HELD: Q
    folded,  # (N, HEADS * D, C)
    out_bias,  # (C)
    out_mean,  # (N) float32
    out_rstd,  # (N) float32
    out_gain,  # (C)
    flat,  # (N) float32: mean of grad_y * gain
    along,  # (N) float32: mean of grad_y * gain * normed
    grad_qkv,  # (N, tokens, 3 * HEADS * D), in the dtype of x
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
    hidden: tl.constexpr = HEADS * D
    of_image = folded + image * hidden * channels
    q_held, m_held = qkv_weight, folded
    last = channels
    if HELD:
        c = tl.arange(0, BLOCK_C)
        q_held = matrix_tile(qkv_weight, feature, c, hidden, channels)
        m_held = matrix_tile(of_image, feature, c, hidden, channels)
        last = BLOCK_C
    centre, scale = tl.load(out_mean + image), tl.load(out_rstd + image)
    flat_mean, along_mean = tl.load(flat + image), tl.load(along + image)
    kind = x.dtype.element_ty
    begin = tl.program_id(0) * run
    for first in range(begin, tl.minimum(begin + run, tokens), BLOCK_T):
        q = _queries(
            x, mean, rstd, norm_weight, norm_bias, qkv_weight, q_held, stored, image, first, tokens,
            channels, HEADS, SLOTS, D, BLOCK_T, BLOCK_C, HELD, PRECISION,
        )  # fmt: skip
        grad_q = tl.zeros([BLOCK_T, SLOTS * D], tl.float32)
        for of_c in range(0, last, BLOCK_C):
            c = of_c + tl.arange(0, BLOCK_C)
            if HELD:
                m = m_held
            else:
                m = matrix_tile(of_image, feature, c, hidden, channels)
            o = tl.dot(q.to(kind), m, input_precision=PRECISION)
            o += channel_values(out_bias, c, channels)[None, :]
            start, at, inside = place(image, first, c, tokens, channels, channels, BLOCK_T)
            g = tl.load(grad_y + start + at, mask=inside, other=0.0).to(tl.float32)
            g *= channel_values(out_gain, c, channels)[None, :]
            grad_o = scale * (g - flat_mean - (o - centre) * scale * along_mean)
            grad_o = tl.where(inside, grad_o, 0.0).to(kind)
            grad_q = tl.dot(grad_o, tl.trans(m), grad_q, input_precision=PRECISION)
        inner = tl.sum(tl.reshape(q * grad_q, [BLOCK_T, SLOTS, D]), axis=2)
        grad_q = tl.reshape(grad_q, [BLOCK_T, SLOTS, D]) - inner[:, :, None]
        grad_q = q * tl.reshape(grad_q, [BLOCK_T, SLOTS * D])
        start, at, inside = place(image, first, feature, tokens, 3 * hidden, hidden, BLOCK_T)
        tl.store(grad_qkv + start + at, grad_q.to(kind), mask=inside)


@launched
@triton.jit(do_not_specialize=["tokens", "run"])
def key_value_gradient_kernel(
    x,
    mean,  # (N) float32
    rstd,  # (N) float32
    norm_weight,  # (C)
    norm_bias,  # (C)
    qkv_weight,  # (3 * HEADS * D, C)
    k_lse,  # (N, HEADS * D) float32
    grad_context,  # (N, HEADS, D, D) float32
    k_terms,  # (N, HEADS * D) float32: sums over e of context * grad_context
    grad_qkv,  # (N, tokens, 3 * HEADS * D), in the dtype of x
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
    feature = tl.program_id(1) * GROUP * D + tl.arange(0, GROUP * D)
    hidden: tl.constexpr = HEADS * D
    known = feature < hidden
    k_held, v_held = qkv_weight, qkv_weight
    if HELD:
        c = tl.arange(0, BLOCK_C)
        k_held = matrix_tile(qkv_weight, hidden + feature, c, 2 * hidden, channels)
        v_held = matrix_tile(qkv_weight, 2 * hidden + feature, c, 3 * hidden, channels)
    row = image * hidden + feature
    lse = tl.load(k_lse + row, mask=known, other=float("inf"))
    terms = tl.load(k_terms + row, mask=known, other=0.0)
    own = (feature // D)[:, None] == (feature // D)[None, :]
    pair = row[:, None] * D + (feature % D)[None, :]
    kind = x.dtype.element_ty
    by_context = tl.load(grad_context + pair, mask=own & known[:, None], other=0.0).to(kind)
    begin = tl.program_id(0) * run
    for first in range(begin, tl.minimum(begin + run, tokens), BLOCK_T):
        k, v = keys_and_values(
            x, mean, rstd, norm_weight, norm_bias, qkv_weight, k_held, v_held, image, first, tokens,
            channels, feature, hidden, BLOCK_T, BLOCK_C, HELD, PRECISION,
        )  # fmt: skip
        k = tl.exp(k - lse[None, :])
        grad_k = tl.dot(v.to(kind), tl.trans(by_context), input_precision=PRECISION)
        grad_k = k * (grad_k - terms[None, :])
        grad_v = tl.dot(k.to(kind), by_context, input_precision=PRECISION)
        start, at, inside = place(image, first, feature, tokens, 3 * hidden, hidden, BLOCK_T)
        to = grad_qkv + start + hidden + at
        tl.store(to, grad_k.to(kind), mask=inside)
        tl.store(to + hidden, grad_v.to(kind), mask=inside)


@launched
@triton.jit(do_not_specialize=["tokens", "run"])
def weight_gradient_kernel(
    grad_qkv,  # (N, tokens, 3 * HEADS * D), in the dtype of x
    grad_y,
    x,
    mean,  # (N) float32
    rstd,  # (N) float32
    norm_weight,  # (C)
    norm_bias,  # (C)
    qkv_weight,  # (3 * HEADS * D, C)
    parts,  # (N, runs, 3 * HEADS * D, C) float32
    by_norm,  # (N, runs, 2, C) float32: sums of grad_normed, grad_normed * normed
    grad_x,  # what there is of it before the first norm's means are known
    tokens,
    channels,
    run,
    HIDDEN: tl.constexpr,
    ROWS: tl.constexpr,  # HIDDEN, padded to a power of two
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
    HELD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    image = tl.program_id(2).to(tl.int64)
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    row = tl.arange(0, ROWS)
    q_held, k_held, v_held = qkv_weight, qkv_weight, qkv_weight
    k_weight, v_weight = qkv_weight + HIDDEN * channels, qkv_weight + 2 * HIDDEN * channels
    if HELD:
        q_held = matrix_tile(qkv_weight, row, c, HIDDEN, channels)
        k_held = matrix_tile(k_weight, row, c, HIDDEN, channels)
        v_held = matrix_tile(v_weight, row, c, HIDDEN, channels)
    of_q = tl.zeros([ROWS, BLOCK_C], tl.float32)
    of_k = tl.zeros([ROWS, BLOCK_C], tl.float32)
    of_v = tl.zeros([ROWS, BLOCK_C], tl.float32)
    total = tl.zeros([BLOCK_C], tl.float32)
    total_by_normed = tl.zeros([BLOCK_C], tl.float32)
    kind = x.dtype.element_ty
    gain = channel_values(norm_weight, c, channels) * tl.load(rstd + image)
    begin = tl.program_id(1) * run
    for first in range(begin, tl.minimum(begin + run, tokens), BLOCK_T):
        normed, centred = normed_tile(
            x, mean, rstd, norm_weight, norm_bias, image, first, c, tokens, channels, BLOCK_T
        )
        normed = normed.to(kind)
        start, at, inside = place(image, first, row, tokens, 3 * HIDDEN, HIDDEN, BLOCK_T)
        of_tile = grad_qkv + start + at
        upstream = tl.load(of_tile, mask=inside, other=0.0)
        w = q_held if HELD else matrix_tile(qkv_weight, row, c, HIDDEN, channels)
        g = tl.dot(upstream, w, input_precision=PRECISION)
        of_q = tl.dot(tl.trans(upstream), normed, of_q, input_precision=PRECISION)
        upstream = tl.load(of_tile + HIDDEN, mask=inside, other=0.0)
        w = k_held if HELD else matrix_tile(k_weight, row, c, HIDDEN, channels)
        g = tl.dot(upstream, w, g, input_precision=PRECISION)
        of_k = tl.dot(tl.trans(upstream), normed, of_k, input_precision=PRECISION)
        upstream = tl.load(of_tile + 2 * HIDDEN, mask=inside, other=0.0)
        w = v_held if HELD else matrix_tile(v_weight, row, c, HIDDEN, channels)
        g = tl.dot(upstream, w, g, input_precision=PRECISION)
        of_v = tl.dot(tl.trans(upstream), normed, of_v, input_precision=PRECISION)
        total += tl.sum(g, axis=0)
        total_by_normed += tl.sum(g * centred, axis=0)
        start, at, inside = place(image, first, c, tokens, channels, channels, BLOCK_T)
        result = tl.load(grad_y + start + at, mask=inside, other=0.0).to(tl.float32)
        result += gain[None, :] * g
        tl.store(grad_x + start + at, result.to(kind), mask=inside)
    slot = image * tl.num_programs(1) + tl.program_id(1)
    to = parts + (slot * 3 * HIDDEN + row[:, None]) * channels + c[None, :]
    inside = (row < HIDDEN)[:, None] & (c < channels)[None, :]
    tl.store(to, of_q, mask=inside)
    tl.store(to + HIDDEN * channels, of_k, mask=inside)
    tl.store(to + 2 * HIDDEN * channels, of_v, mask=inside)
    to = by_norm + slot * 2 * channels + c
    tl.store(to, total, mask=c < channels)
    tl.store(to + channels, total_by_normed, mask=c < channels)


@launched
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
