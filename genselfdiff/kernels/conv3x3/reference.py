"""3x3 convolutions in plain torch: the truth for the fast ones, and what is taken beside them."""

import torch
import torch.nn.functional as F

BLOCK = 16
"""Channels that lie side by side in packed weights."""


def conv3x3(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Plain-torch :func:`genselfdiff.kernels.conv3x3`."""
    return F.conv2d(x, weight, bias, padding=1)


def forward(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    packed: torch.Tensor | None,
) -> torch.Tensor:
    """Plain-torch ``gsd::conv3x3``, which has no use for ``packed``."""
    y = conv3x3(x, weight.to(x), None if bias is None else bias.to(x))
    return y.contiguous(memory_format=torch.channels_last)


def pack(weight: torch.Tensor) -> torch.Tensor:
    """Plain-torch ``gsd::conv3x3_pack``: G w G^T as the products read it.

    They lie as (blocks of out, 36 products, in, 16 of out), zeros after the last channel.
    """
    points = [sign * 2.0**power for power in (-0.5, 0.5) for sign in (1.0, -1.0)]
    rows = torch.tensor([[1.0, p, p * p] for p in (0.0, *points)], dtype=torch.float64)
    distances = [[a - b for b in (0.0, *points) if b != a] for a in (0.0, *points)]
    rows /= torch.tensor(distances, dtype=torch.float64).prod(1, keepdim=True)
    last = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    g = torch.cat((rows, last)).to(weight.device)
    factors = torch.einsum("iy,ocyx,jx->oijc", g, weight.double(), g).flatten(1, 2)
    factors = F.pad(factors, (0, 0, 0, 0, 0, -len(weight) % BLOCK))
    blocks = factors.reshape(-1, BLOCK, 36, weight.shape[1]).permute(0, 2, 3, 1)
    return blocks.to(torch.float32).flatten()


def weight_gradient(grad_y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Plain-torch ``gsd::conv3x3_weight_gradient``.

    It is computed in NCHW, for which oneDNN has by far the faster kernels without AMX.
    """
    size = (grad_y.shape[1], x.shape[1], 3, 3)
    like = x.new_empty(()).expand(size)
    gradient = torch.ops.aten.convolution_backward(
        grad_y.contiguous(), x.contiguous(), like, None,
        [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False],
    )[1]  # fmt: skip
    wide = gradient.to(torch.promote_types(x.dtype, torch.float32))
    return wide.contiguous(memory_format=torch.channels_last)
