"""GroupNorm followed by SiLU in plain torch: the truth for the fast ones."""

import torch
import torch.nn.functional as F


def group_norm_silu(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    groups: int,
    shift: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> torch.Tensor:
    """Plain-torch :func:`genselfdiff.kernels.group_norm_silu`."""
    # The dtypes of the parameters never reach the result.
    wide = torch.promote_types(x.dtype, weight.dtype)
    y = F.silu(F.group_norm(x.to(wide), groups, weight.to(wide), bias.to(wide), eps)).to(x.dtype)
    if shift is not None:
        y = y + shift[:, :, None, None].to(x.dtype)
    if residual is not None:
        y = y + residual
    return y


def forward(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    groups: int,
    shift: torch.Tensor | None,
    residual: torch.Tensor | None,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Plain-torch ``gsd::group_norm_silu``: the result and the groups' mean and 1 / deviation."""
    y = group_norm_silu(x, weight.to(x), bias.to(x), groups, shift, residual, eps)
    wide = x.to(torch.promote_types(x.dtype, torch.float32)).reshape(len(x), groups, -1)
    variance, mean = torch.var_mean(wide, dim=2, correction=0)
    y = y.to(x.dtype).contiguous(memory_format=torch.channels_last)
    return y, mean, (variance + eps).rsqrt()


def backward(
    grad_y: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    mean: torch.Tensor,
    rstd: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Plain-torch ``gsd::group_norm_silu_backward``: gradients in x, weight, bias and shift."""
    dtype = mean.dtype
    n, per_group = len(x), x.shape[1] // mean.shape[1]

    def by_channel(values: torch.Tensor) -> torch.Tensor:
        return values.repeat_interleave(per_group, dim=1)[:, :, None, None]

    gain = weight.to(dtype)[None, :, None, None]
    normed = (x.to(dtype) - by_channel(mean)) * by_channel(rstd)
    z = normed * gain + bias.to(dtype)[None, :, None, None]
    s = z.sigmoid()
    g = grad_y.to(dtype)
    grad_z = g * (s + z * s * (1.0 - s))
    grad_normed = grad_z * gain

    def group_mean(values: torch.Tensor) -> torch.Tensor:
        return by_channel(values.reshape(n, mean.shape[1], -1).mean(dim=2))

    grad_x = by_channel(rstd) * (
        grad_normed - group_mean(grad_normed) - normed * group_mean(grad_normed * normed)
    )
    return (
        grad_x.to(x.dtype).contiguous(memory_format=torch.channels_last),
        (grad_z * normed).sum(dim=(0, 2, 3)),
        grad_z.sum(dim=(0, 2, 3)),
        g.sum(dim=(2, 3)),
    )
