"""The linear-attention block on channels_last memory, as Triton kernels.

Forward: the first norm's statistics; keys and values, whose softmax over the tokens and context are
made for runs of tokens and merged; context, scale and output convolution folded into one matrix per
image; the second norm's statistics; the result. q, k and v are made from x wherever they are
needed: only statistics are kept. Backward: reference.backward, with sums over the tokens in place
of its arrays. The gradient in q, k and v is stored, and q is where no program holds the matrices.

Everything is split over runs of fixed length, one writer a slot, and merged in a fixed order.

Here arguments are checked and kernels launched; the kernels are in triton_forward.py,
triton_backward.py and, what both use, triton_tiles.py. How many tokens, channels and heads a
program takes is in kernels/tiles.json: what fits into registers. Numbers of float32 are split in
three for the matrix units, and so take much more room.
"""

import torch
import triton

from genselfdiff.kernels.checks import check_dtype, kernel_parameters
from genselfdiff.kernels.launching import cdiv
from genselfdiff.kernels.linear_attention.op import GPU_LIMIT, gpu_takes
from genselfdiff.kernels.linear_attention.triton_backward import (
    input_gradient_kernel,
    key_value_gradient_kernel,
    output_sums_kernel,
    queries_kernel,
    query_gradient_kernel,
    weight_gradient_kernel,
)
from genselfdiff.kernels.linear_attention.triton_forward import (
    context_kernel,
    fold_kernel,
    image_moments_kernel,
    merge_context_kernel,
    merge_image_moments_kernel,
    output_kernel,
    output_moments_kernel,
)
from genselfdiff.kernels.tiles import NARROW, tiles

NORMED = 16384  # elements of x that a program makes the moments of
NORMED_BLOCK = 4096  # of which it holds so many at once
MERGED = 1024  # runs that a merging program holds at once
FOLDED_C = 64  # channels of the folded matrix that one program makes
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
    hidden = heads * d
    x = x.contiguous(memory_format=torch.channels_last)
    named = {
        "norm_weight": (norm_weight, channels),
        "norm_bias": (norm_bias, channels),
        "out_bias": (out_bias, channels),
        "out_norm_weight": (out_norm_weight, channels),
        "out_norm_bias": (out_norm_bias, channels),
    }
    *norm, out_bias, out_gain, out_offset = kernel_parameters("linear_attention", x.dtype, named)
    qkv = _matrix("qkv_weight", qkv_weight, 3 * hidden * channels, x)
    out = _matrix("out_weight", out_weight, hidden * channels, x)

    def floats(*shape: int) -> torch.Tensor:
        return x.new_empty(shape, dtype=torch.float32)

    y, k_lse, context = torch.empty_like(x), floats(n, hidden), floats(n, heads, d, d)
    if x.numel() == 0:
        return y, floats(n, 4).zero_(), k_lse.zero_(), context.zero_()
    mean, rstd = floats(n, 1), floats(n, 1)
    run = max(1, NORMED // channels)
    runs = cdiv(tokens, run)
    parts = floats(n, runs, 2)
    image_moments_kernel[(runs, n)](x, parts, tokens, channels, run, NORMED_BLOCK)
    merge_image_moments_kernel[(n,)](parts, mean, rstd, eps, tokens, runs, run, MERGED)
    precision = _precision()

    tile = tiles("linear_attention.context", x)
    runs = cdiv(tokens, tile.run)
    peaks, sums = floats(n, runs, hidden), floats(n, runs, hidden)
    parts = floats(n, runs, heads, d, d)
    group = min(tile.group, triton.next_power_of_2(heads))
    context_kernel[(cdiv(heads, group), runs, n)](
        x, mean, rstd, *norm, qkv, peaks, sums, parts, tokens, channels, tile.run,
        heads, d, group, tile.block_t, tile.block_c, tile.held, precision, **tile.options,
    )  # fmt: skip
    merge_context_kernel[(heads, d // MERGED_ROWS, n)](
        peaks, sums, parts, k_lse, context, runs, d, MERGED_ROWS
    )
    folded = _folded(context, out, channels)

    tile = tiles("linear_attention.output", x)
    runs = cdiv(tokens, tile.run)
    parts, out_mean, out_rstd = floats(n, runs, 2), floats(n, 1), floats(n, 1)
    constants = (heads, triton.next_power_of_2(heads), d, tile.block_t, tile.block_c, tile.held)
    output_moments_kernel[(runs, n)](
        x, mean, rstd, *norm, qkv, folded, out_bias, parts, tokens, channels, tile.run,
        *constants, precision, **tile.options,
    )  # fmt: skip
    merge_image_moments_kernel[(n,)](parts, out_mean, out_rstd, eps, tokens, runs, tile.run, MERGED)
    output_kernel[(runs, n)](
        x, mean, rstd, *norm, qkv, folded, out_bias, out_mean, out_rstd, out_gain, out_offset, y,
        tokens, channels, tile.run, *constants, precision, **tile.options,
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
    hidden, slots = heads * d, triton.next_power_of_2(heads)
    if grad_y.shape != x.shape or grad_y.dtype != x.dtype:
        raise RuntimeError("linear_attention: grad_y must have the shape and dtype of x")
    x = x.contiguous(memory_format=torch.channels_last)
    grad_y = grad_y.contiguous(memory_format=torch.channels_last)
    named = {
        "norm_weight": (norm_weight, channels),
        "norm_bias": (norm_bias, channels),
        "out_bias": (out_bias, channels),
        "out_norm_weight": (out_norm_weight, channels),
    }
    *norm, out_bias, out_gain = kernel_parameters("linear_attention", x.dtype, named)
    qkv = _matrix("qkv_weight", qkv_weight, 3 * hidden * channels, x)
    k_lse, context = k_lse.float().contiguous(), context.float().contiguous()

    def floats(*shape: int) -> torch.Tensor:
        return x.new_empty(shape, dtype=torch.float32)

    rows = floats(4, 4 * cdiv(n, 4))[:, :n]  # each at a multiple of 16 bytes
    mean, rstd, out_mean, out_rstd = rows.copy_(moments.t())

    if x.numel() == 0:
        parameters = (*norm, qkv_weight, out_weight, out_bias, out_gain, out_norm_bias)
        return torch.empty_like(x), *(floats(*p.shape).zero_() for p in parameters)
    folded = _folded(context, _matrix("out_weight", out_weight, hidden * channels, x), channels)
    precision = _precision()
    normed = (x, mean, rstd, *norm, qkv)

    # What the gradient in the output convolution's result needs of all tokens; products with Q.
    tile = tiles("linear_attention.output_sums", x)
    stored = qkv
    if not tile.held:
        stored = x.new_empty((n, tokens, hidden))
        made = tiles("linear_attention.output", x)
        queries_kernel[(cdiv(tokens, made.run), n)](
            *normed, stored, tokens, channels, made.run,
            heads, slots, d, made.block_t, made.block_c, precision, **made.options,
        )  # fmt: skip
    runs, blocks = cdiv(tokens, tile.run), cdiv(channels, tile.block_c)
    products = floats(n, runs, 2, hidden, channels)
    sums, q_sums = floats(n, runs, 3, channels), floats(n, runs, hidden)
    output_sums_kernel[(blocks, runs, n)](
        grad_y, *normed, stored, folded, out_bias, out_mean, out_rstd, products, sums, q_sums,
        tokens, channels, tile.run,
        heads, slots, d, tile.block_t, tile.block_c, NARROW, tile.held, precision, **tile.options,
    )  # fmt: skip
    by_grad, by_normed = products.sum(1).unbind(1)  # Q^T grad_y and Q^T normed, (N, hidden, C)
    y_sum, y_normed_sum, normed_sum = sums.sum(1).unbind(1)
    q_sum = q_sums.sum(1)
    elements = float(tokens * channels)
    flat = (y_sum * out_gain).sum(1, keepdim=True) / elements  # means over the norm's array
    along = (y_normed_sum * out_gain).sum(1, keepdim=True) / elements
    scale = out_rstd[:, None]
    grad_out_bias = scale * (out_gain * y_sum - flat * tokens - along * normed_sum)
    grad_folded = scale[:, None] * (
        out_gain * by_grad - flat[:, None] * q_sum[:, :, None] - along[:, None] * by_normed
    )
    by_head = grad_folded.reshape(n, heads, d, channels) * d**-0.5
    out = out_weight.float().reshape(channels, heads, d)
    grad_context = torch.einsum("nhdc,che->nhde", by_head, out).contiguous()
    grad_out = torch.einsum("nhdc,nhde->che", by_head, context)
    k_terms = (context * grad_context).sum(3)

    grad_qkv = x.new_empty((n, tokens, 3 * hidden))
    held = tile.held
    tile = tiles("linear_attention.query_gradient", x)
    block_c = NARROW if held else tile.block_c
    query_gradient_kernel[(cdiv(tokens, tile.run), n)](
        grad_y, *normed, stored, folded, out_bias, out_mean, out_rstd, out_gain, flat, along,
        grad_qkv, tokens, channels, tile.run,
        heads, slots, d, tile.block_t, block_c, held, precision, **tile.options,
    )  # fmt: skip
    tile = tiles("linear_attention.key_value_gradient", x)
    group = min(tile.group, slots)
    key_value_gradient_kernel[(cdiv(tokens, tile.run), cdiv(heads, group), n)](
        *normed, k_lse, grad_context, k_terms, grad_qkv, tokens, channels, tile.run,
        heads, d, group, tile.block_t, tile.block_c, tile.held, precision, **tile.options,
    )  # fmt: skip
    tile = tiles("linear_attention.weight_gradient", x)
    runs, blocks = cdiv(tokens, tile.run), cdiv(channels, tile.block_c)
    weight_parts, by_norm = floats(n, runs, 3 * hidden, channels), floats(n, runs, 2, channels)
    grad_x = torch.empty_like(x)
    weight_gradient_kernel[(blocks, runs, n)](
        grad_qkv, grad_y, *normed, weight_parts, by_norm, grad_x, tokens, channels, tile.run,
        hidden, slots * d, tile.block_t, tile.block_c, tile.held, precision, **tile.options,
    )  # fmt: skip
    norm_sums = by_norm.sum(1)  # (N, 2, C): of grad_normed and of grad_normed * normed
    norm_means = (norm_sums * norm[0]).sum(2) / elements
    tile = tiles("linear_attention.input_gradient", x)
    grid = (cdiv(tokens, tile.block_t), cdiv(channels, tile.block_c), n)
    input_gradient_kernel[grid](
        x, mean, rstd, norm_means, grad_x, tokens, channels, tile.block_t, tile.block_c,
        **tile.options,
    )  # fmt: skip
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
    fold_kernel[(heads, cdiv(channels, FOLDED_C), n)](
        context, out, folded, d**-0.5, channels, heads, d, FOLDED_C
    )
    return folded
