"""The operations of the network as a TorchScript graph calls them: by name, through torch.

Whatever compiles these needs the ``gsd`` operations registered, by this package or by its native
library alone, wherever it is loaded. Torch chooses the kernel by device each time it runs. The
functions of the same names in ``genselfdiff.kernels`` become plain torch when they are compiled.
"""

import torch


def conv3x3(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    packed: torch.Tensor,
    least_pixels: int,
) -> torch.Tensor:
    """As :func:`genselfdiff.kernels.conv3x3`, by weights that were packed before.

    Torch's convolution is taken where ``packed`` is empty, and for a batch with fewer than
    ``least_pixels``.
    """
    if packed.numel() == 0 or x.shape[0] * x.shape[2] * x.shape[3] < least_pixels:
        return torch.conv2d(x, weight, bias, padding=1)
    y: torch.Tensor = torch.ops.gsd.conv3x3(x, weight, bias, packed)
    return y


def group_norm_silu(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    groups: int,
    shift: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> torch.Tensor:
    """As :func:`genselfdiff.kernels.group_norm_silu`."""
    if residual is not None:
        residual = residual.to(x.dtype)  # autocast mixes them, the operation does not
    y, _, _ = torch.ops.gsd.group_norm_silu(x, weight, bias, groups, shift, residual, eps)
    return y


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
    """As :func:`genselfdiff.kernels.linear_attention`."""
    y, _, _, _ = torch.ops.gsd.linear_attention(
        x,
        norm_weight,
        norm_bias,
        qkv_weight,
        out_weight,
        out_bias,
        out_norm_weight,
        out_norm_bias,
        heads,
        eps,
    )
    return y
