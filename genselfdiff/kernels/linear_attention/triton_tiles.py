"""What the kernels of both directions do with a tile of tokens: normalise it, project it.

In all kernels x and what is shaped like it is (N, tokens, C) in memory, float32 or bfloat16, and
HEADS is padded to SLOTS, a power of two: features of the padding are masked wherever they are
loaded, so that they add nothing.
"""

import triton
import triton.language as tl


@triton.jit
def normed_tile(x, mean, rstd, norm_weight, norm_bias, image, t, c, tokens, channels):
    """Tile of the normed x, its offsets and where it is, and x before gain and offset."""
    inside = (t < tokens)[:, None] & (c < channels)[None, :]
    at = (image * tokens + t[:, None]) * channels + c[None, :]
    values = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    centred = (values - tl.load(mean + image)) * tl.load(rstd + image)
    gain = tl.load(norm_weight + c, mask=c < channels, other=0.0)
    offset = tl.load(norm_bias + c, mask=c < channels, other=0.0)
    return centred * gain[None, :] + offset[None, :], at, inside, centred


@triton.jit
def project(
    x, mean, rstd, norm_weight, norm_bias, weight, image, t, tokens, channels, rows, limit,
    BLOCK_C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Rows of the qkv convolution, below `limit`, applied to a tile of tokens: (tokens, rows)."""
    result = tl.zeros([t.shape[0], rows.shape[0]], tl.float32)
    for first in range(0, channels, BLOCK_C):
        c = first + tl.arange(0, BLOCK_C)
        normed, _, _, _ = normed_tile(
            x, mean, rstd, norm_weight, norm_bias, image, t, c, tokens, channels
        )
        inside = (c < channels)[:, None] & (rows < limit)[None, :]
        w = tl.load(weight + rows[None, :] * channels + c[:, None], mask=inside, other=0.0)
        result = tl.dot(normed.to(w.dtype), w, result, input_precision=PRECISION)
    return result


@triton.jit
def queries(
    x, mean, rstd, norm_weight, norm_bias, weight, image, t, tokens, channels,
    HEADS: tl.constexpr, SLOTS: tl.constexpr, D: tl.constexpr,
    BLOCK_C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Softmax of q over each head's features, (tokens, SLOTS * D)."""
    q = project(
        x, mean, rstd, norm_weight, norm_bias, weight, image, t, tokens, channels,
        tl.arange(0, SLOTS * D), HEADS * D, BLOCK_C, PRECISION,
    )  # fmt: skip
    q = tl.reshape(q, [t.shape[0], SLOTS, D])
    q = tl.exp(q - tl.max(q, axis=2)[:, :, None])
    return tl.reshape(q / tl.sum(q, axis=2)[:, :, None], [t.shape[0], SLOTS * D])


@triton.jit
def matrix_tile(matrix, rows, c, limit, channels):
    """Some channels of a (limit, C) matrix."""
    inside = (rows < limit)[:, None] & (c < channels)[None, :]
    return tl.load(matrix + rows[:, None] * channels + c[None, :], mask=inside, other=0.0)


@triton.jit
def output_tile(
    q, folded, out_bias, image, c, channels,
    HEADS: tl.constexpr, SLOTS: tl.constexpr, D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Some channels of the output convolution's result, and the folded matrix they came from."""
    m = matrix_tile(
        folded + image * HEADS * D * channels, tl.arange(0, SLOTS * D), c, HEADS * D, channels
    )
    o = tl.dot(q.to(m.dtype), m, input_precision=PRECISION)
    return o + tl.load(out_bias + c, mask=c < channels, other=0.0)[None, :], m
