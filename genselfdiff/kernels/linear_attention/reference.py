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
    """``x + GroupNorm(1)(conv(attention(qkv(GroupNorm(1)(x)))))``.

    Args:
        x: (N, C, H, W), any floating dtype and memory format; channels_last avoids copies.
        norm_weight, norm_bias: (C,) of the GroupNorm(1) before the attention.
        qkv_weight: (3 * heads * d, C, 1, 1) convolution without bias; q, k and v in this order,
            each head by head.
        out_weight, out_bias: (C, heads * d, 1, 1) and (C,).
        out_norm_weight, out_norm_bias: (C,) of the GroupNorm(1) after the output convolution.
        heads: number of heads.
        eps: added to both variances.

    Returns:
        A tensor shaped like ``x``.
    """
    n, c, height, width = x.shape
    hidden = out_weight.shape[1]
    head_dim = hidden // heads

    normed = F.group_norm(x, 1, norm_weight, norm_bias, eps)
    tokens = normed.permute(0, 2, 3, 1).reshape(n, height * width, c)
    q, k, v = F.linear(tokens, qkv_weight.flatten(1)).chunk(3, dim=2)
    q = q.reshape(n, height * width, heads, head_dim).softmax(dim=3).flatten(2) * head_dim**-0.5
    k = k.softmax(dim=1)

    # One product over all heads and a block-diagonal mask: heads never mix, and nothing is copied.
    head = torch.arange(hidden, device=x.device) // head_dim
    same_head = (head[:, None] == head[None, :]).to(k.dtype)
    context = torch.matmul(k.transpose(1, 2), v) * same_head
    folded = torch.matmul(context, out_weight.flatten(1).transpose(0, 1).to(context.dtype))
    y = torch.matmul(q, folded) + out_bias

    y = y.reshape(n, height, width, c).permute(0, 3, 1, 2)
    return x + F.group_norm(y, 1, out_norm_weight, out_norm_bias, eps)
