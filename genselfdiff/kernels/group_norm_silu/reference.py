"""GroupNorm followed by SiLU, with what the residual block adds after it, in plain torch."""

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
    """``SiLU(GroupNorm(x)) + shift + residual``.

    Args:
        x: (N, C, H, W), any floating dtype and memory format.
        weight: (C,) gain.
        bias: (C,) offset.
        groups: number of groups; divides C.
        shift: (N, C) per-channel shift (the time embedding), or None.
        residual: shaped like ``x``, or None.
        eps: added to the variance.

    Returns:
        A tensor shaped like ``x``.
    """
    y = F.silu(F.group_norm(x, groups, weight, bias, eps))
    if shift is not None:
        y = y + shift[:, :, None, None]
    if residual is not None:
        y = y + residual
    return y
