"""The form of a network that is exported: for one time step, fused or in plain torch."""

import copy

import torch
from torch import nn

from genselfdiff.kernels import convolution_rules, fused
from genselfdiff.kernels.conv3x3 import reference as plain_conv3x3
from genselfdiff.kernels.conv4x4 import reference as plain_conv4x4
from genselfdiff.kernels.group_norm_silu import reference as plain_group_norm_silu
from genselfdiff.kernels.linear_attention import reference as plain_linear_attention
from genselfdiff.models.convolutions import Conv3x3, Enlarge, Halve
from genselfdiff.models.unet import (
    ConvNormSilu,
    LinearAttentionBlock,
    Net,
    ResidualBlock,
)


class ConstantShift(nn.Module):
    """In the place of ``ResidualBlock.mlp``: the shift of one time step, whatever the embedding."""

    shift: torch.Tensor

    def __init__(self, shift: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("shift", shift)

    def forward(self, time: torch.Tensor) -> torch.Tensor:
        """(N, ...) to (N, C)."""
        return self.shift.expand(time.shape[0], -1)


class PackedConv3x3(nn.Module):
    """In the place of a ``Conv3x3``: the file has its weights once, who loads it may pack them.

    See ``pack_weights``; until then, torch's convolution runs.
    """

    packed: torch.Tensor

    def __init__(self, convolution: Conv3x3) -> None:
        super().__init__()
        self.weight = convolution.weight
        self.bias = convolution.bias
        self.least_pixels = convolution_rules.LEAST_PIXELS
        self.register_buffer("packed", torch.empty(0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in, H, W) to (N, out, H, W)."""
        return fused.conv3x3(x, self.weight, self.bias, self.packed, self.least_pixels)


def for_export(network: nn.Module, *, portable: bool) -> nn.Module:
    """A copy of ``network`` to be compiled: on the CPU, in evaluation mode, without gradients.

    Its time input is not looked at any more: it is 0, and the layers that read it are folded into
    a constant for each block.

    Args:
        network: what to copy; blocks that are not of the U-Net stay as they are.
        portable: compile to plain torch; otherwise to calls of the ``gsd`` operations, which run
            where this package, or its native library, is loaded.
    """
    network = copy.deepcopy(network).cpu().eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, Net):
            _fold_time_zero(module)
    for module in network.modules():
        if portable:
            _use_plain_torch(module)
        elif isinstance(module, ConvNormSilu):
            module.group_norm_silu = fused.group_norm_silu
            if isinstance(module.proj, Conv3x3):
                module.proj = PackedConv3x3(module.proj)
        elif isinstance(module, LinearAttentionBlock):
            module.linear_attention = fused.linear_attention
    return network


def _use_plain_torch(module: nn.Module) -> None:
    """Whoever looks on while the network runs, as ``torch.export`` does, then sees nothing else."""
    match module:
        case ConvNormSilu():
            module.group_norm_silu = plain_group_norm_silu.group_norm_silu
        case LinearAttentionBlock():
            module.linear_attention = plain_linear_attention.linear_attention
        case Conv3x3():
            module.conv3x3 = plain_conv3x3.conv3x3
        case Halve() | Enlarge():
            module.conv4x4 = plain_conv4x4.conv4x4


def _fold_time_zero(net: Net) -> None:
    time = net.time_mlp(torch.zeros(1, dtype=torch.int64))
    for module in net.modules():
        if isinstance(module, ResidualBlock):
            module.mlp = ConstantShift(module.mlp(time))
    net.time_mlp = nn.Identity()
