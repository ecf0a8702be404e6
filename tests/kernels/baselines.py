"""The operations as the paper and its code compute them, one torch call a step.

What the kernels are compared with, in numbers by the tests and in speed by ``benchmarks/``. The
authors' ``group_norm_silu`` is the plain-torch one of the package.
"""

import torch
import torch.nn.functional as F

STABILISER = 0.01
ERROR_SHARE = 0.1


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
    """Channel-major, with 1x1 convolutions and einsum."""
    n, _, height, width = x.shape
    hidden = out_weight.shape[1]
    normed = F.group_norm(x, 1, norm_weight, norm_bias, eps)
    q, k, v = (
        part.reshape(n, heads, hidden // heads, height * width)
        for part in F.conv2d(normed, qkv_weight).chunk(3, dim=1)
    )
    q = q.softmax(dim=2) * (hidden // heads) ** -0.5
    k = k.softmax(dim=3)
    context = torch.einsum("bhdn,bhen->bhde", k, v)
    out = torch.einsum("bhde,bhdn->bhen", context, q).reshape(n, hidden, height, width)
    out = F.conv2d(out, out_weight, out_bias)
    return x + F.group_norm(out, 1, out_norm_weight, out_norm_bias, eps)


def multi_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The scalar form, on probabilities."""
    p = logits.softmax(1)
    target = F.one_hot(labels, p.shape[1]).permute(0, 3, 1, 2).to(p)

    def standardised(plane: torch.Tensor) -> torch.Tensor:
        mean, std = plane.mean((2, 3), keepdim=True), plane.std((2, 3), keepdim=True)
        return (plane - mean + STABILISER) / (std + STABILISER)

    error = (standardised(target) - standardised(p)).abs()
    counted = (error > ERROR_SHARE * error.amax((2, 3), keepdim=True)).to(p)
    similarity = (error * counted).sum() / counted.sum() * F.nll_loss(p.log(), labels)
    p_true = p.gather(1, labels[:, None])
    return similarity + (-((1 - p_true) ** 2) * p_true.log()).mean()


def add_noise(
    x0: torch.Tensor, t: torch.Tensor, alpha_bars: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """``x_t`` and torch's own noise; grey levels (uint8) are scaled to -1..1."""
    clean = x0.float() / 127.5 - 1.0 if x0.dtype == torch.uint8 else x0
    noise = torch.randn_like(clean)
    signal, spread = (
        table[t].to(clean).reshape(-1, *[1] * (x0.dim() - 1))
        for table in (alpha_bars.sqrt(), (1 - alpha_bars).sqrt())
    )
    return signal * clean + spread * noise, noise


def p2_loss(
    pred: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Mean over the batch."""
    error = (pred - noise).square().flatten(1).mean(dim=1)
    return (error * weights[t].to(pred)).mean()
