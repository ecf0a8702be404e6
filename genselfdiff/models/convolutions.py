"""Convolutions of the U-Net whose arithmetic is ours, where that is faster."""

import torch
from torch import nn

from genselfdiff.kernels import conv3x3
from genselfdiff.kernels.conv4x4.op import conv4x4


class Conv3x3(nn.Conv2d):
    """3x3 convolution that leaves the size."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)
        self.conv3x3 = conv3x3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in, H, W) to (N, out, H, W)."""
        return self.conv3x3(x, self.weight, self.bias)


class Halve(nn.Conv2d):
    """4x4 convolution that halves the size."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 4, 2, 1)
        self.conv4x4 = conv4x4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C, H / 2, W / 2)."""
        return self.conv4x4(x, self.weight, self.bias, False)


class Enlarge(nn.ConvTranspose2d):
    """Transpose of a 4x4 convolution: doubles the size."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 4, 2, 1)
        self.conv4x4 = conv4x4

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """(N, in, H, W) to (N, out, 2 H, 2 W)."""
        return self.conv4x4(x, self.weight, self.bias, True)
