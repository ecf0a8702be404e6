"""The linear-attention block on channels_last memory, as Triton kernels.

Forward: the first norm's statistics; keys and values, whose softmax over the tokens and context are
made for runs of tokens and merged; context, scale and output convolution folded into one matrix per
image; the second norm's statistics; the result. q, k and v are made from x wherever they are
needed: only statistics are kept. Backward: reference.backward, with sums over the tokens in place
of its arrays; the gradient in q, k and v is the only array that is larger than x.

Everything is split over runs of fixed length, one writer a slot, and merged in a fixed order.
"""

import torch
import triton
import triton.language as tl

from genselfdiff.kernels.checks import check_dtype
from genselfdiff.kernels.group_norm_silu.triton import MERGED_C, MERGED_RUNS, merge_moments_kernel
from genselfdiff.kernels.group_norm_silu.triton import moments as moments_of
from genselfdiff.kernels.linear_attention.op import GPU_LIMIT, gpu_takes

RUN = 512  # tokens whose context one program makes; fixed, so that results do not vary by device
GRADIENT_RUN = 2048  # tokens whose sums one program of the backward makes
# Tokens and channels that a program holds at once, forward and backward: what fits into registers.
# Numbers of float32 are split in three for the matrix units, and so take much more room.
BLOCKS = {torch.bfloat16: (64, 64), torch.float32: (32, 32)}
GRADIENT_BLOCKS = {torch.bfloat16: (32, 64), torch.float32: (16, 32)}
FOLDED_C = 64  # channels of the folded matrix that one program makes
OPTIONS = {"num_warps": 8, "num_stages": 2}
MERGED_ROWS = 16  # of the context, that a merging program holds, and so many runs at once


def forward(
    x: torch.Tensor,
    norm_weight: torch.Tensor,
    norm_bias: torch.Tensor,
    qkv_weight: torch.Tensor,
    out_weight: torch.Tensor,
    out_bias: torch.Tensor,
    out_norm_weight: torch.Tensor,
    out_norm_bias: torch.Tensor,
    heads: int,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Triton's ``gsd::linear_attention``: the result and what the backward pass needs of it."""
    n, channels, tokens, d = _checked_shape(x, out_weight, heads)
    x = x.contiguous(memory_format=torch.channels_last)
    norm = (
        _parameters("norm_weight", norm_weight, channels),
        _parameters("norm_bias", norm_bias, channels),
    )
    out_norm = (
        _parameters("out_norm_weight", out_norm_weight, channels),
        _parameters("out_norm_bias", out_norm_bias, channels),
    )
    out_bias = _parameters("out_bias", out_bias, channels)
    block_t, block_c = BLOCKS[x.dtype]
    qkv = _matrix("qkv_weight", qkv_weight, 3 * heads * d * channels, x)
    out = _matrix("out_weight", out_weight, heads * d * channels, x)

    def floats(*shape: int) -> torch.Tensor:
        return x.new_empty(shape, dtype=torch.float32)

    y, k_lse, context = torch.empty_like(x), floats(n, heads * d), floats(n, heads, d, d)
    if x.numel() == 0:
        return y, floats(n, 4).zero_(), k_lse.zero_(), context.zero_()
    mean, rstd = moments_of(x, 1, eps)
    shape = (tokens, channels, heads, triton.next_power_of_2(heads), d)
    precision = _precision()

    runs = triton.cdiv(tokens, RUN)
    peaks, sums = floats(n, runs, heads * d), floats(n, runs, heads * d)
    parts = floats(n, runs, heads, d, d)
    context_kernel[(heads, runs, n)](
        x, mean, rstd, *norm, qkv, peaks, sums, parts, *shape, RUN, block_t, block_c, precision,
        **OPTIONS,
    )  # fmt: skip
    merge_context_kernel[(heads, d // MERGED_ROWS, n)](
        peaks, sums, parts, k_lse, context, runs, d, MERGED_ROWS
    )
    folded = _folded(context, out, channels)

    tiles = triton.cdiv(tokens, block_t)
    tile_moments = floats(n, tiles, 2)
    output_moments_kernel[(tiles, n)](
        x, mean, rstd, *norm, qkv, folded, out_bias, tile_moments,
        *shape, block_t, block_c, precision, **OPTIONS,
    )  # fmt: skip
    out_mean, out_rstd = floats(n, 1), floats(n, 1)
    merge_moments_kernel[(1, n)](
        tile_moments, out_mean, out_rstd, eps, tokens, 1, tiles, block_t, MERGED_RUNS, MERGED_C
    )
    output_kernel[(tiles, n)](
        x, mean, rstd, *norm, qkv, folded, out_bias, out_mean, out_rstd, *out_norm, y,
        *shape, block_t, block_c, precision, **OPTIONS,
    )  # fmt: skip
    return y, torch.cat((mean, rstd, out_mean, out_rstd), dim=1), k_lse, context


def backward(
    grad_y: torch.Tensor,
    x: torch.Tensor,
    norm_weight: torch.Tensor,
    norm_bias: torch.Tensor,
    qkv_weight: torch.Tensor,
    out_weight: torch.Tensor,
    out_bias: torch.Tensor,
    out_norm_weight: torch.Tensor,
    out_norm_bias: torch.Tensor,
    moments: torch.Tensor,
    k_lse: torch.Tensor,
    context: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    """Triton's ``gsd::linear_attention_backward``: gradients in x and the seven parameters."""
    if context.dim() != 4 or context.shape[0] != x.shape[0]:
        raise RuntimeError("linear_attention_backward: context must have shape (N, heads, d, d)")
    heads = context.shape[1]
    n, channels, tokens, d = _checked_shape(x, out_weight, heads)
    hidden = heads * d
    if grad_y.shape != x.shape or grad_y.dtype != x.dtype:
        raise RuntimeError("linear_attention: grad_y must have the shape and dtype of x")
    x = x.contiguous(memory_format=torch.channels_last)
    grad_y = grad_y.contiguous(memory_format=torch.channels_last)
    norm = norm_weight.float().contiguous(), norm_bias.float().contiguous()
    out_gain, out_bias = out_norm_weight.float().contiguous(), out_bias.float().contiguous()
    qkv = _matrix("qkv_weight", qkv_weight, 3 * hidden * channels, x)
    k_lse, context = k_lse.float().contiguous(), context.float().contiguous()
    mean, rstd, out_mean, out_rstd = moments.float().t().contiguous()

    def floats(*shape: int) -> torch.Tensor:
        return x.new_empty(shape, dtype=torch.float32)

    if x.numel() == 0:
        parameters = (*norm, qkv_weight, out_weight, out_bias, out_gain, out_norm_bias)
        return torch.empty_like(x), *(floats(*p.shape).zero_() for p in parameters)
    folded = _folded(context, _matrix("out_weight", out_weight, hidden * channels, x), channels)
    shape = (tokens, channels, heads, triton.next_power_of_2(heads), d)
    precision = _precision()

    block_t, block_c = GRADIENT_BLOCKS[x.dtype]

    # What the gradient in the output convolution's result needs of all tokens; products with Q.
    runs, blocks = triton.cdiv(tokens, GRADIENT_RUN), triton.cdiv(channels, block_c)
    products = floats(n, runs, 2, hidden, channels)
    sums, q_sums = floats(n, runs, 3, channels), floats(n, runs, hidden)
    output_sums_kernel[(runs, blocks, n)](
        grad_y, x, mean, rstd, *norm, qkv, folded, out_bias, out_mean, out_rstd,
        products, sums, q_sums, *shape, GRADIENT_RUN, block_t, block_c, precision, **OPTIONS,
    )  # fmt: skip
    by_grad, by_normed = products.sum(1).unbind(1)  # Q^T grad_y and Q^T normed, (N, hidden, C)
    y_sum, y_normed_sum, normed_sum = sums.sum(1).unbind(1)
    q_sum = q_sums.sum(1)
    elements = float(tokens * channels)
    flat = (y_sum @ out_gain / elements)[:, None]  # means over the norm's array
    along = (y_normed_sum @ out_gain / elements)[:, None]
    scale = out_rstd[:, None]
    grad_out_bias = scale * (out_gain * y_sum - flat * tokens - along * normed_sum)
    grad_folded = scale[:, None] * (
        out_gain * by_grad - flat[:, None] * q_sum[:, :, None] - along[:, None] * by_normed
    )
    by_head = grad_folded.reshape(n, heads, d, channels) * d**-0.5
    out = out_weight.float().reshape(channels, heads, d)
    grad_context = torch.einsum("nhdc,che->nhde", by_head, out).contiguous()
    grad_out = torch.einsum("nhdc,nhde->che", by_head, context)
    k_terms = (context * grad_context).sum(3).contiguous()

    tiles = triton.cdiv(tokens, block_t)
    grad_qkv = x.new_empty((n, tokens, 3 * hidden))
    grad_x, by_norm = torch.empty_like(x), floats(n, tiles, 2, channels)
    qkv_gradient_kernel[(tiles, n)](
        grad_y, x, mean, rstd, *norm, qkv, folded, out_bias, out_mean, out_rstd, out_gain,
        flat.contiguous(), along.contiguous(), k_lse, grad_context.to(x.dtype), k_terms,
        grad_qkv, grad_x, by_norm, *shape, block_t, block_c, precision, **OPTIONS,
    )  # fmt: skip
    weight_parts = floats(n, runs, 3 * hidden, channels)
    weight_gradient_kernel[(triton.cdiv(3 * hidden, block_c), blocks, n * runs)](
        grad_qkv, x, mean, rstd, *norm, weight_parts, tokens, channels, 3 * hidden, runs,
        GRADIENT_RUN, block_t, block_c, precision, **OPTIONS,
    )  # fmt: skip
    norm_sums = by_norm.sum(1)  # (N, 2, C): of grad_normed and of grad_normed * normed
    norm_means = (norm_sums @ norm[0] / elements).contiguous()
    input_gradient_kernel[(tiles, blocks, n)](
        x, mean, rstd, norm_means, grad_x, tokens, channels, block_t, block_c
    )
    grad_norm_bias, grad_norm_weight = norm_sums.sum(0)
    return (
        grad_x,
        grad_norm_weight,
        grad_norm_bias,
        weight_parts.sum((0, 1)).reshape(qkv_weight.shape),
        grad_out.reshape(out_weight.shape),
        grad_out_bias.sum(0),
        y_normed_sum.sum(0),
        y_sum.sum(0),
    )


def _checked_shape(
    x: torch.Tensor, out_weight: torch.Tensor, heads: int
) -> tuple[int, int, int, int]:
    """Images, channels, tokens and features of a head."""
    check_dtype("linear_attention", "x", x, (torch.float32, torch.bfloat16))
    if x.dim() != 4:
        raise RuntimeError("linear_attention: x must have shape (N, C, H, W)")
    n, channels, height, width = x.shape
    if out_weight.dim() < 2 or out_weight.shape[0] != channels:
        raise RuntimeError("linear_attention: out_weight must have shape (C, heads * d, 1, 1)")
    hidden = out_weight.shape[1]
    if heads < 1 or hidden % heads:
        raise RuntimeError(f"linear_attention: {heads} heads do not divide {hidden} features")
    d = hidden // heads
    if not gpu_takes(heads, hidden):
        raise RuntimeError(f"linear_attention: {GPU_LIMIT}, not {heads} of {d}")
    return n, channels, height * width, d


def _parameters(name: str, parameters: torch.Tensor, count: int) -> torch.Tensor:
    if parameters.numel() != count:
        raise RuntimeError(f"linear_attention: {name} must have {count} elements")
    return parameters.float().contiguous()


def _matrix(name: str, weight: torch.Tensor, count: int, x: torch.Tensor) -> torch.Tensor:
    """A convolution's weight as an operand of the matrix products, in the dtype of x."""
    if weight.numel() != count:
        raise RuntimeError(f"linear_attention: {name} must have {count} elements")
    return weight.to(x.dtype).contiguous()


def _precision() -> str:
    """Of float32 products: three tf32 ones each, or one where torch is allowed to do so."""
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "tf32x3"


def _folded(context: torch.Tensor, out: torch.Tensor, channels: int) -> torch.Tensor:
    """(N, hidden, C): context, scale and output convolution in one, in the dtype of ``out``."""
    n, heads, d, _ = context.shape
    folded = out.new_empty((n, heads * d, channels))
    fold_kernel[(heads, triton.cdiv(channels, FOLDED_C), n)](
        context, out, folded, d**-0.5, channels, heads, d, FOLDED_C
    )
    return folded


# In all kernels x and what is shaped like it is (N, tokens, C) in memory, float32 or bfloat16, and
# HEADS is padded to SLOTS, a power of two: features of the padding are masked wherever they are
# loaded, so that they add nothing.


@triton.jit
def _normed(x, mean, rstd, norm_weight, norm_bias, image, t, c, tokens, channels):
    """Tile of the normed x, its offsets and where it is, and x before gain and offset."""
    inside = (t < tokens)[:, None] & (c < channels)[None, :]
    at = (image * tokens + t[:, None]) * channels + c[None, :]
    values = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    centred = (values - tl.load(mean + image)) * tl.load(rstd + image)
    gain = tl.load(norm_weight + c, mask=c < channels, other=0.0)
    offset = tl.load(norm_bias + c, mask=c < channels, other=0.0)
    return centred * gain[None, :] + offset[None, :], at, inside, centred


@triton.jit
def _project(
    x, mean, rstd, norm_weight, norm_bias, weight, image, t, tokens, channels, rows, limit,
    BLOCK_C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Rows of the qkv convolution, below `limit`, applied to a tile of tokens: (tokens, rows)."""
    result = tl.zeros([t.shape[0], rows.shape[0]], tl.float32)
    for first in range(0, channels, BLOCK_C):
        c = first + tl.arange(0, BLOCK_C)
        normed, _, _, _ = _normed(
            x, mean, rstd, norm_weight, norm_bias, image, t, c, tokens, channels
        )
        inside = (c < channels)[:, None] & (rows < limit)[None, :]
        w = tl.load(weight + rows[None, :] * channels + c[:, None], mask=inside, other=0.0)
        result = tl.dot(normed.to(w.dtype), w, result, input_precision=PRECISION)
    return result


@triton.jit
def _queries(
    x, mean, rstd, norm_weight, norm_bias, weight, image, t, tokens, channels,
    HEADS: tl.constexpr, SLOTS: tl.constexpr, D: tl.constexpr,
    BLOCK_C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Softmax of q over each head's features, (tokens, SLOTS * D)."""
    q = _project(
        x, mean, rstd, norm_weight, norm_bias, weight, image, t, tokens, channels,
        tl.arange(0, SLOTS * D), HEADS * D, BLOCK_C, PRECISION,
    )  # fmt: skip
    q = tl.reshape(q, [t.shape[0], SLOTS, D])
    q = tl.exp(q - tl.max(q, axis=2)[:, :, None])
    return tl.reshape(q / tl.sum(q, axis=2)[:, :, None], [t.shape[0], SLOTS * D])


@triton.jit
def _matrix_tile(matrix, rows, c, limit, channels):
    """Some channels of a (limit, C) matrix."""
    inside = (rows < limit)[:, None] & (c < channels)[None, :]
    return tl.load(matrix + rows[:, None] * channels + c[None, :], mask=inside, other=0.0)


@triton.jit
def _output(
    q, folded, out_bias, image, c, channels,
    HEADS: tl.constexpr, SLOTS: tl.constexpr, D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Some channels of the output convolution's result, and the folded matrix they came from."""
    m = _matrix_tile(
        folded + image * HEADS * D * channels, tl.arange(0, SLOTS * D), c, HEADS * D, channels
    )
    o = tl.dot(q.to(m.dtype), m, input_precision=PRECISION)
    return o + tl.load(out_bias + c, mask=c < channels, other=0.0)[None, :], m


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
        k = _project(
            x, mean, rstd, norm_weight, norm_bias, qkv_weight, image, t, tokens, channels,
            k_rows, 3 * HEADS * D, BLOCK_C, PRECISION,
        )  # fmt: skip
        v = _project(
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
    q = _queries(
        x, mean, rstd, norm_weight, norm_bias, qkv_weight, image, t, tokens, channels,
        HEADS, SLOTS, D, BLOCK_C, PRECISION,
    )  # fmt: skip
    rows = tl.minimum(tokens - tl.program_id(0) * BLOCK_T, BLOCK_T).to(tl.float32)
    centre = tl.full([], 0.0, tl.float32)
    squares = tl.full([], 0.0, tl.float32)
    before = tl.full([], 0.0, tl.float32)
    for first in range(0, channels, BLOCK_C):
        c = first + tl.arange(0, BLOCK_C)
        o, _ = _output(q, folded, out_bias, image, c, channels, HEADS, SLOTS, D, PRECISION)
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
    q = _queries(
        x, mean, rstd, norm_weight, norm_bias, qkv_weight, image, t, tokens, channels,
        HEADS, SLOTS, D, BLOCK_C, PRECISION,
    )  # fmt: skip
    centre, scale = tl.load(out_mean + image), tl.load(out_rstd + image)
    for first in range(0, channels, BLOCK_C):
        c = first + tl.arange(0, BLOCK_C)
        here = c < channels
        o, _ = _output(q, folded, out_bias, image, c, channels, HEADS, SLOTS, D, PRECISION)
        gain = tl.load(out_norm_weight + c, mask=here, other=0.0)
        offset = tl.load(out_norm_bias + c, mask=here, other=0.0)
        inside = (t < tokens)[:, None] & here[None, :]
        at = (image * tokens + t[:, None]) * channels + c[None, :]
        values = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        result = values + ((o - centre) * scale * gain[None, :] + offset[None, :])
        tl.store(y + at, result.to(y.dtype.element_ty), mask=inside)


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
        q = _queries(
            x, mean, rstd, norm_weight, norm_bias, qkv_weight, image, t, tokens, channels,
            HEADS, SLOTS, D, BLOCK_C, PRECISION,
        )  # fmt: skip
        q = tl.where((t < tokens)[:, None], q, 0.0)
        o, _ = _output(q, folded, out_bias, image, c, channels, HEADS, SLOTS, D, PRECISION)
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

    q = _queries(
        x, mean, rstd, norm_weight, norm_bias, qkv_weight, image, t, tokens, channels,
        HEADS, SLOTS, D, BLOCK_C, PRECISION,
    )  # fmt: skip
    centre, scale = tl.load(out_mean + image), tl.load(out_rstd + image)
    flat_mean, along_mean = tl.load(flat + image), tl.load(along + image)
    grad_q = tl.zeros([BLOCK_T, SLOTS * D], tl.float32)
    for first in range(0, channels, BLOCK_C):
        c = first + tl.arange(0, BLOCK_C)
        o, m = _output(q, folded, out_bias, image, c, channels, HEADS, SLOTS, D, PRECISION)
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

    k = _project(
        x, mean, rstd, norm_weight, norm_bias, qkv_weight, image, t, tokens, channels,
        hidden + feature, 2 * hidden, BLOCK_C, PRECISION,
    )  # fmt: skip
    lse = tl.load(k_lse + image * hidden + feature, mask=known, other=float("inf"))
    k = tl.where(here_t, tl.exp(k - lse[None, :]), 0.0)
    v = _project(
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
        w = _matrix_tile(qkv_weight, feature, c, hidden, channels)
        g = tl.dot(grad_q, w, input_precision=PRECISION)
        w = _matrix_tile(qkv_weight + hidden * channels, feature, c, hidden, channels)
        g = tl.dot(grad_k, w, g, input_precision=PRECISION)
        w = _matrix_tile(qkv_weight + 2 * hidden * channels, feature, c, hidden, channels)
        g = tl.dot(grad_v, w, g, input_precision=PRECISION)
        _, at, inside, centred = _normed(
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
        normed, _, _, _ = _normed(
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
