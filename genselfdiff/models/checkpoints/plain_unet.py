"""The U-Net as most people write it: four halvings, two convolutions with batch norm at each level.

Ronneberger et al., MICCAI 2015, padded so that sizes stay, with the names of entries and the two
ways to enlarge that https://github.com/milesial/Pytorch-UNet has made usual.
"""

import torch
from torch import nn

from genselfdiff.errors import ModelError
from genselfdiff.models.checkpoints.state_dicts import State


class DoubleConv(nn.Module):
    """(N, in, H, W) to (N, out, H, W); its sizes are those of the entries below ``prefix``."""

    def __init__(self, state: State, prefix: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for place in (0, 3):
            weight = state[f"{prefix}.double_conv.{place}.weight"]
            outputs, inputs = weight.shape[:2]
            has_bias = f"{prefix}.double_conv.{place}.bias" in state
            convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=has_bias)
            layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
        self.double_conv = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Both convolutions."""
        y: torch.Tensor = self.double_conv(x)
        return y


class Down(nn.Module):
    """(N, in, H, W) to (N, out, H / 2, W / 2)."""

    def __init__(self, state: State, prefix: str) -> None:
        super().__init__()
        convolutions = DoubleConv(state, f"{prefix}.maxpool_conv.1")
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), convolutions)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The largest of four, then the convolutions."""
        y: torch.Tensor = self.maxpool_conv(x)
        return y


class Up(nn.Module):
    """(N, in, H, W) to (N, out, 2 H, 2 W), with what the same level of the encoder has given."""

    def __init__(self, state: State, prefix: str) -> None:
        super().__init__()
        self.up: nn.Module = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        weight = state.get(f"{prefix}.up.weight")
        if weight is not None:
            inputs, outputs = weight.shape[:2]
            self.up = nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
        self.conv = DoubleConv(state, f"{prefix}.conv")

    def forward(self, x: torch.Tensor, beside: torch.Tensor) -> torch.Tensor:
        """``beside`` is (N, C, 2 H, 2 W)."""
        y: torch.Tensor = self.conv(torch.cat((beside, self.up(x)), 1))
        return y


class Out(nn.Module):
    """(N, in, H, W) to logits (N, C, H, W)."""

    def __init__(self, state: State, prefix: str) -> None:
        super().__init__()
        outputs, inputs = state[f"{prefix}.conv.weight"].shape[:2]
        self.conv = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Each pixel by itself."""
        y: torch.Tensor = self.conv(x)
        return y


class PlainUNet(nn.Module):
    """The network whose entries ``state`` has, with fresh weights; of 16ths of pixels at least.

    Raises:
        ModelError: an entry is missing, or no weights of such a layer.
    """

    def __init__(self, state: State) -> None:
        super().__init__()
        try:
            self.inc = DoubleConv(state, "inc")
            self.down1, self.down2 = Down(state, "down1"), Down(state, "down2")
            self.down3, self.down4 = Down(state, "down3"), Down(state, "down4")
            self.up1, self.up2 = Up(state, "up1"), Up(state, "up2")
            self.up3, self.up4 = Up(state, "up3"), Up(state, "up4")
            self.outc = Out(state, "outc")
        except (KeyError, ValueError, TypeError) as error:
            raise ModelError(f"no weights of a plain U-Net: {error}") from error

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to logits (N, C, H, W), H and W being multiples of 16."""
        x1 = self.inc(x)
        x2 = self.down1(x1)
        x3 = self.down2(x2)
        x4 = self.down3(x3)
        x5 = self.down4(x4)
        y = self.up1(x5, x4)
        y = self.up2(y, x3)
        y = self.up3(y, x2)
        y = self.up4(y, x1)
        logits: torch.Tensor = self.outc(y)
        return logits
