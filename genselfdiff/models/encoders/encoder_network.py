"""A frozen vision transformer with a small decoder that learns from few labels."""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from genselfdiff.choices import ENCODER_WIDTH
from genselfdiff.errors import InputError
from genselfdiff.models.convolutions import Enlarge, Halve
from genselfdiff.models.encoders.vision_transformer import STRIDE, VisionTransformer, VitShape
from genselfdiff.models.unet import GROUPS, ConvNormSilu, HeadBlock

_TAKEN = 4
"""Maps that the decoder gets, from blocks at equal distances, the last among them."""


class Fusion(nn.Module):
    """Doubles the size of what comes from below and adds what the image itself shows there."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.enlarge = Enlarge(in_channels, out_channels)
        self.block = ConvNormSilu(out_channels, out_channels)

    def forward(self, x: torch.Tensor, detail: torch.Tensor | None = None) -> torch.Tensor:
        """(N, in, H, W) and (N, out, 2 H, 2 W) to the shape of the latter."""
        x = self.enlarge(x)
        if detail is not None:
            x = x + detail
        return self.block(x, None, x)


class Decoder(nn.Module):
    """From the maps of an encoder, and the image, to logits.

    What becomes of `models.weights` is named as in the U-Net: ``final_conv`` is the output head,
    whose last layer gives ``place`` x ``place`` pixels.
    """

    if TYPE_CHECKING:  # hidden from TorchScript, which knows the real types
        ups: Any

    def __init__(self, channels: int, width: int, out_channels: int) -> None:
        super().__init__()
        self.place = 2
        self.stem = nn.Conv2d(3, width, 7, 2, padding=3)
        self.reduce = nn.Sequential(Halve(width), nn.Conv2d(width, 2 * width, 1))
        self.project = nn.Conv2d(channels, 8 * width, 1)
        self.mix = ConvNormSilu(8 * width, 8 * width)
        self.ups = nn.ModuleList(
            (Fusion(8 * width, 4 * width), Fusion(4 * width, 2 * width), Fusion(2 * width, width))
        )
        self.final_conv = nn.Sequential(
            HeadBlock(width), nn.Conv2d(width, out_channels * self.place**2, 1)
        )

    def forward(self, image: torch.Tensor, maps: list[torch.Tensor]) -> torch.Tensor:
        """(N, 3, H, W) and several (N, C, H / 16, W / 16) to (N, out_channels, H, W)."""
        stem = self.stem(image)
        x = self.mix(self.project(torch.cat(maps, 1)))
        x = self.ups[0](x)
        x = self.ups[1](x, self.reduce(stem))
        x = self.ups[2](x, stem)
        return F.pixel_shuffle(self.final_conv(x), self.place)


class EncoderNetwork(nn.Module):
    """``forward(x, t)``: logits of stage 2, whatever ``t``; only the decoder learns.

    Args:
        shape: of the encoder.
        width: channels of the decoder at half of the resolution; divisible by 8.
        out_channels: see ``UNet``.

    Attributes:
        size_multiple: heights and widths must be multiples of this.

    Raises:
        InputError: the width is no such number.
    """

    def __init__(self, shape: VitShape, out_channels: int, width: int = ENCODER_WIDTH) -> None:
        super().__init__()
        if width < GROUPS or width % GROUPS:
            raise InputError(f"width {width} must be a positive multiple of {GROUPS}")
        taken = sorted({-(-shape.blocks * part // _TAKEN) - 1 for part in range(1, _TAKEN + 1)})
        self.size_multiple = STRIDE
        self.encoder = VisionTransformer(shape, tuple(taken)).requires_grad_(False)
        self.net = Decoder(len(taken) * shape.channels, width, out_channels)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """x: (N, 3, H, W) in -1..1, multiples of 16; t: (N,) int64; (N, out_channels, H, W)."""
        return self.net(x, self.encoder(x))
