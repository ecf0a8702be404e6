"""The linear-attention block, token-major, in plain torch.

Softmax over the features of q and over the tokens of k makes the attention linear in the number of
tokens: a head's context ``k v^T`` is a small matrix. Because the output convolution is linear too,
context and convolution are folded into one matrix per image, and the block is three matrix products
over a (tokens, channels) array, which is what channels_last memory already is.
"""

import torch
import torch.nn.functional as F


def linear_attention(
    x: torch.Tensor,
    norm_weight: torch.Tensor,
    norm_bias: torch.Tensor,
    qkv_weight: torch.Tensor,
    out_weight: torch.Tensor,
    out_bias: torch.Tensor,
    out_norm_weight: torch.Tensor,
    out_norm_bias: torch.Tensor,
    heads: int,
    eps: float = 1e-5,
) -> torch.Tensor:
    """Plain-torch :func:`genselfdiff.kernels.linear_attention`."""
    n, c, height, width = x.shape
    hidden = out_weight.shape[1]
    head_dim = hidden // heads
    # The dtypes of the parameters never reach the result.
    wide = torch.promote_types(x.dtype, qkv_weight.dtype)

    normed = F.group_norm(x.to(wide), 1, norm_weight.to(wide), norm_bias.to(wide), eps)
    tokens = normed.permute(0, 2, 3, 1).reshape(n, height * width, c)
    q, k, v = F.linear(tokens, qkv_weight.flatten(1).to(wide)).chunk(3, dim=2)
    q = q.reshape(n, height * width, heads, head_dim).softmax(dim=3).flatten(2) * head_dim**-0.5
    k = k.softmax(dim=1)

    # One product over all heads and a block-diagonal mask: heads never mix, and nothing is copied.
    head = torch.arange(hidden, device=x.device) // head_dim
    same_head = (head[:, None] == head[None, :]).to(k.dtype)
    context = torch.matmul(k.transpose(1, 2), v) * same_head
    folded = torch.matmul(context, out_weight.flatten(1).transpose(0, 1).to(context.dtype))
    y = torch.matmul(q, folded) + out_bias.to(wide)

    y = y.reshape(n, height, width, c).permute(0, 3, 1, 2)
    y = F.group_norm(y.to(wide), 1, out_norm_weight.to(wide), out_norm_bias.to(wide), eps)
    return (x + y).to(x.dtype)


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
    """Plain-torch ``gsd::linear_attention``: the result and what the backward pass needs of it.

    Returns:
        y: shaped like ``x``, channels_last.
        moments: (N, 4), mean and 1 / deviation of the first and of the second norm.
        k_lse: (N, heads * d), log of the sum of exp(k) over the tokens.
        context: (N, heads, d, d), softmax(k)^T v of each head.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    parameters = norm_weight, norm_bias, qkv_weight, out_weight, out_bias
    gain, offset, qkv_weight, out_weight, out_bias = (p.to(dtype) for p in parameters)
    tokens = _tokens(x).to(dtype)
    mean, rstd = _moments(tokens, eps)
    normed = (tokens - mean) * rstd * gain + offset
    q, k, v = _qkv(normed, qkv_weight, heads)
    k_lse = k.logsumexp(dim=1)
    context = torch.einsum("nthd,nthe->nhde", (k - k_lse[:, None]).exp(), v)
    o = q.flatten(2) @ _folded(context, out_weight) + out_bias
    out_mean, out_rstd = _moments(o, eps)
    out_gain = out_rstd * out_norm_weight.to(dtype)
    y = _images(tokens + (o - out_mean) * out_gain + out_norm_bias.to(dtype), x)
    moments = torch.cat((mean, rstd, out_mean, out_rstd), dim=1).flatten(1)
    return y, moments, k_lse.flatten(1), context


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
    """Plain-torch ``gsd::linear_attention_backward``: gradients in x and the seven parameters."""
    dtype = moments.dtype
    heads, d = context.shape[1:3]
    gain, offset, out_gain = (p.to(dtype) for p in (norm_weight, norm_bias, out_norm_weight))
    weight, out = qkv_weight.to(dtype), out_weight.to(dtype)
    mean, rstd, out_mean, out_rstd = torch.split(moments[:, None], 1, dim=2)

    centred = (_tokens(x).to(dtype) - mean) * rstd
    normed = centred * gain + offset
    q, k, v = _qkv(normed, weight, heads)
    k = (k - k_lse.reshape(-1, 1, heads, d)).exp()
    folded = _folded(context, out)
    o = (q.flatten(2) @ folded + out_bias.to(dtype) - out_mean) * out_rstd

    upstream = _tokens(grad_y).to(dtype)
    grad_out_gain, grad_out_offset = (upstream * o).sum(1), upstream.sum(1)
    grad_o = _through_norm(upstream * out_gain, o, out_rstd)
    grad_folded = q.flatten(2).transpose(1, 2) @ grad_o
    by_head = grad_folded.reshape(-1, heads, d, x.shape[1]) * d**-0.5
    grad_context = torch.einsum("nhdc,che->nhde", by_head, out.reshape(-1, heads, d))
    grad_out = torch.einsum("nhdc,nhde->che", by_head, context)

    grad_q = (grad_o @ folded.transpose(1, 2)).reshape(q.shape)
    grad_q = q * (grad_q - (q * grad_q).sum(3, keepdim=True))
    grad_k = torch.einsum("nthe,nhde->nthd", v, grad_context)
    grad_k = k * (grad_k - (context * grad_context).sum(3)[:, None])
    grad_v = torch.einsum("nthd,nhde->nthe", k, grad_context)
    grad_qkv = torch.stack((grad_q, grad_k, grad_v), dim=2).flatten(2)
    grad_normed = grad_qkv @ weight.flatten(1)
    grad_x = _through_norm(grad_normed * gain, centred, rstd) + upstream

    return (
        _images(grad_x, x),
        (grad_normed * centred).sum((0, 1)),
        grad_normed.sum((0, 1)),
        torch.einsum("nto,ntc->oc", grad_qkv, normed).reshape(qkv_weight.shape),
        grad_out.reshape(out_weight.shape),
        grad_o.sum((0, 1)),
        grad_out_gain.sum(0),
        grad_out_offset.sum(0),
    )


def _tokens(x: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) to (N, H * W, C)."""
    return x.flatten(2).transpose(1, 2)


def _images(tokens: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(N, H * W, C) to the shape and dtype of ``like``, channels_last."""
    n, c, height, width = like.shape
    images = tokens.to(like.dtype).reshape(n, height, width, c).permute(0, 3, 1, 2)
    return images.contiguous(memory_format=torch.channels_last)


def _moments(tokens: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and 1 / deviation of each image, (N, 1, 1)."""
    variance, mean = torch.var_mean(tokens, dim=(1, 2), correction=0, keepdim=True)
    return mean, (variance + eps).rsqrt()


def _qkv(
    normed: torch.Tensor, weight: torch.Tensor, heads: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(N, T, C) to softmax(q), k and v, (N, T, heads, d) each."""
    qkv = F.linear(normed, weight.flatten(1))
    q, k, v = qkv.reshape(*qkv.shape[:2], 3, heads, -1).unbind(2)
    return q.softmax(3), k, v


def _folded(context: torch.Tensor, out_weight: torch.Tensor) -> torch.Tensor:
    """(N, heads * d, C): context, scale and output convolution in one."""
    heads, d = context.shape[1:3]
    out = out_weight.reshape(-1, heads, d)
    return torch.einsum("nhde,che->nhdc", context * d**-0.5, out).flatten(1, 2)


def _through_norm(
    grad_normed: torch.Tensor, normed: torch.Tensor, rstd: torch.Tensor
) -> torch.Tensor:
    """Gradient in what a norm over (T, C) was given, from that in its result before the gain."""
    along = (grad_normed * normed).mean((1, 2), keepdim=True)
    return rstd * (grad_normed - grad_normed.mean((1, 2), keepdim=True) - normed * along)
