"""What the kernels of both directions do with a tile of tokens: normalise it, project it.

In all kernels x and what is shaped like it is (N, tokens, C) in memory, float32 or bfloat16.
Parameters are of that dtype or float32; the matrices, qkv_weight and folded, are of that of x.
HEADS is padded to SLOTS, a power of two: features of the padding are masked wherever they are
loaded, so that they add nothing. A program walks over its tokens in tiles. Where HELD, the matrices
are loaded once, before the first tile: those of all channels, of which BLOCK_C (in
output_sums_kernel BLOCK_Q) is no smaller then, or in weight_gradient_kernel those of its block.
"""

import triton
import triton.language as tl


@triton.jit
def place(image, first, c, tokens, columns, limit, BLOCK_T: tl.constexpr):
    """Where some columns of a tile lie in (N, tokens, columns): its begin, offsets, what exists.

    Offsets are of 32 bits, for each element; the begin is one number of 64.
    """
    row = tl.arange(0, BLOCK_T)
    at = row[:, None] * columns + c[None, :]
    inside = (first + row < tokens)[:, None] & (c < limit)[None, :]
    return (image * tokens + first) * columns, at, inside


@triton.jit
def normed_tile(
    x, mean, rstd, norm_weight, norm_bias, image, first, c, tokens, channels, BLOCK_T: tl.constexpr
):
    """Some channels of a tile of the normed x, and the same before gain and offset."""
    begin, at, inside = place(image, first, c, tokens, channels, channels, BLOCK_T)
    values = tl.load(x + begin + at, mask=inside, other=0.0).to(tl.float32)
    centred = (values - tl.load(mean + image)) * tl.load(rstd + image)
    gain = channel_values(norm_weight, c, channels)
    offset = channel_values(norm_bias, c, channels)
    return centred * gain[None, :] + offset[None, :], centred


@triton.jit
def channel_values(parameter, c, channels):
    """Some channels of a (C) parameter, in float32."""
    return tl.load(parameter + c, mask=c < channels, other=0.0).to(tl.float32)


@triton.jit
def matrix_tile(matrix, rows, c, limit, channels):
    """Some channels of the rows of a matrix with C columns; rows from `limit` on are zero."""
    inside = (rows < limit)[:, None] & (c < channels)[None, :]
    return tl.load(matrix + rows[:, None] * channels + c[None, :], mask=inside, other=0.0)


@triton.jit
def head_softmax(q, SLOTS: tl.constexpr, D: tl.constexpr):
    """Softmax over each head's features, of (tokens, SLOTS * D)."""
    apart = tl.reshape(q, [q.shape[0], SLOTS, D])
    apart = tl.exp(apart - tl.max(apart, axis=2)[:, :, None])
    share = 1.0 / tl.sum(apart, axis=2)  # one division a head, not one a feature
    return tl.reshape(apart * share[:, :, None], [q.shape[0], SLOTS * D])


@triton.jit
def queries(
    x, mean, rstd, norm_weight, norm_bias, weight, held, image, first, tokens, channels,
    HEADS: tl.constexpr, SLOTS: tl.constexpr, D: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr, HELD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Softmax of q over each head's features, (tokens, SLOTS * D); `held` is what HELD says."""
    q = tl.zeros([BLOCK_T, SLOTS * D], tl.float32)
    if HELD:
        c = tl.arange(0, BLOCK_C)
        normed, _ = normed_tile(
            x, mean, rstd, norm_weight, norm_bias, image, first, c, tokens, channels, BLOCK_T,
        )  # fmt: skip
        q = tl.dot(normed.to(held.dtype), tl.trans(held), q, input_precision=PRECISION)
    else:
        rows = tl.arange(0, SLOTS * D)
        for of_c in range(0, channels, BLOCK_C):
            c = of_c + tl.arange(0, BLOCK_C)
            normed, _ = normed_tile(
                x, mean, rstd, norm_weight, norm_bias, image, first, c, tokens, channels, BLOCK_T,
            )  # fmt: skip
            w = matrix_tile(weight, rows, c, HEADS * D, channels)
            q = tl.dot(normed.to(w.dtype), tl.trans(w), q, input_precision=PRECISION)
    return head_softmax(q, SLOTS, D)


@triton.jit
def keys_and_values(
    x, mean, rstd, norm_weight, norm_bias, weight, k_held, v_held, image, first, tokens, channels,
    feature, HIDDEN: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr, HELD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Some features of k and v, (tokens, features); `k_held` and `v_held` are what HELD says."""
    k = tl.zeros([BLOCK_T, feature.shape[0]], tl.float32)
    v = tl.zeros([BLOCK_T, feature.shape[0]], tl.float32)
    if HELD:
        c = tl.arange(0, BLOCK_C)
        normed, _ = normed_tile(
            x, mean, rstd, norm_weight, norm_bias, image, first, c, tokens, channels, BLOCK_T,
        )  # fmt: skip
        normed = normed.to(k_held.dtype)
        k = tl.dot(normed, tl.trans(k_held), k, input_precision=PRECISION)
        v = tl.dot(normed, tl.trans(v_held), v, input_precision=PRECISION)
    else:
        for of_c in range(0, channels, BLOCK_C):
            c = of_c + tl.arange(0, BLOCK_C)
            normed, _ = normed_tile(
                x, mean, rstd, norm_weight, norm_bias, image, first, c, tokens, channels, BLOCK_T,
            )  # fmt: skip
            w = matrix_tile(weight, HIDDEN + feature, c, 2 * HIDDEN, channels)
            normed = normed.to(w.dtype)
            k = tl.dot(normed, tl.trans(w), k, input_precision=PRECISION)
            w = matrix_tile(weight, 2 * HIDDEN + feature, c, 3 * HIDDEN, channels)
            v = tl.dot(normed, tl.trans(w), v, input_precision=PRECISION)
    return k, v
