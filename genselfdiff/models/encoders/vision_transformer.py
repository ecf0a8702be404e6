"""A vision transformer as pathology's foundation models are ones, to be looked at in its middle.

Dosovitskiy et al., ICLR 2021, with the registers of Darcet et al., ICLR 2024. It is built of the
shapes of its weights (`vit_weights`), computes as timm's does, and compiles with torch.jit.script
for images of any size.
"""

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import nn

from genselfdiff.errors import InputError
from genselfdiff.settings import require_types

STRIDE: Final = 16
"""Pixels of a side that become one token, whatever the patches of the transformer."""

_EPSILON: Final = 1e-6
_LARGEST = 1 << 14
"""Of what a shape says; the widest that are known have 1,664 channels and 8,192 hidden ones."""


@dataclass(frozen=True)
class VitShape:
    """What a transformer is like.

    Attributes:
        name: of the file or folder of its weights.
        channels: of a token.
        blocks, heads: how many.
        hidden: channels inside the MLP of a block.
        gated: this MLP multiplies by a gate (SwiGLU), else it is one of GELU.
        scaled: what a block adds is scaled by channel (LayerScale).
        patch: side in pixels of what a token was learnt of.
        grid: tokens a side of the images that it was learnt with.
        prefix: tokens before those of the image: of the class, and registers.
        mean, deviation: of red, green and blue in 0..1, taken out of images.

    Raises:
        InputError: no transformer is like that.
    """

    name: str
    channels: int
    blocks: int
    heads: int
    hidden: int
    gated: bool
    scaled: bool
    patch: int
    grid: int
    prefix: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __post_init__(self) -> None:
        require_types(self)
        sizes = (self.channels, self.blocks, self.heads, self.hidden, self.patch, self.grid)
        is_sound = (
            all(1 <= size <= _LARGEST for size in sizes)
            and 0 <= self.prefix <= _LARGEST
            and self.channels % self.heads == 0
            and len(self.mean) == len(self.deviation) == 3
            and all(value > 0 for value in self.deviation)
        )
        if not is_sound:
            raise InputError(f"no vision transformer is like that: {self}")


class Attention(nn.Module):
    """Of every token to every one, in several heads."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, L, C) to the same shape."""
        n, length, channels = x.shape
        qkv = self.qkv(x).reshape(n, length, 3, self.heads, channels // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, channels)
        y = self.proj(y)
        return y


class Mlp(nn.Module):
    """Two layers with GELU between them, or with SiLU of one half that gates the other."""

    def __init__(self, channels: int, hidden: int, gated: bool) -> None:
        super().__init__()
        self.gated = gated
        self.fc1 = nn.Linear(channels, 2 * hidden if gated else hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, L, C) to the same shape."""
        y: torch.Tensor = self.fc1(x)
        if self.gated:
            gate, y = y.chunk(2, dim=-1)
            y = F.silu(gate) * y
        else:
            y = F.gelu(y)
        y = self.fc2(y)
        return y


class LayerScale(nn.Module):
    """A factor for each channel (Touvron et al., ICCV 2021)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, L, C) to the same shape."""
        return x * self.gamma


class Block(nn.Module):
    """Attention and an MLP, each of normed tokens and added to them."""

    def __init__(self, shape: VitShape) -> None:
        super().__init__()
        channels = shape.channels
        self.norm1 = nn.LayerNorm(channels, _EPSILON)
        self.attn = Attention(channels, shape.heads)
        self.ls1 = LayerScale(channels) if shape.scaled else nn.Identity()
        self.norm2 = nn.LayerNorm(channels, _EPSILON)
        self.mlp = Mlp(channels, shape.hidden, shape.gated)
        self.ls2 = LayerScale(channels) if shape.scaled else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, L, C) to the same shape."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class VisionTransformer(nn.Module):
    """Images in -1..1 to the tokens after some of the blocks, as maps.

    Images are scaled so that each token is ``STRIDE`` pixels of them, and positions between those
    that were learnt are interpolated.

    Args:
        shape: what it is like.
        taken: numbers of the blocks after which tokens are taken, from 0, rising.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, shape: VitShape, taken: tuple[int, ...]) -> None:
        super().__init__()
        self.taken = list(taken)
        self.stride = STRIDE
        self.patch = shape.patch
        self.grid = shape.grid
        self.prefix_length = shape.prefix
        self.prefix = nn.Parameter(torch.zeros(1, shape.prefix, shape.channels))
        self.pos_embed = nn.Parameter(torch.zeros(1, shape.grid**2, shape.channels))
        self.patch_embed = nn.Conv2d(3, shape.channels, shape.patch, shape.patch)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.blocks))
        self.norm = nn.LayerNorm(shape.channels, _EPSILON)
        mean, deviation = (torch.tensor(v)[:, None, None] for v in (shape.mean, shape.deviation))
        self.register_buffer("mean", 2 * mean - 1, persistent=False)
        self.register_buffer("deviation", 2 * deviation, persistent=False)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """(N, 3, H, W), multiples of ``STRIDE``, to several (N, C, H / STRIDE, W / STRIDE)."""
        height, width = x.shape[2] // self.stride, x.shape[3] // self.stride
        x = (x - self.mean) / self.deviation
        if self.patch != self.stride:
            size = [height * self.patch, width * self.patch]
            x = F.interpolate(x, size, mode="bilinear", antialias=True)
        x = self.patch_embed(x).flatten(2).transpose(1, 2) + self._positions(height, width)
        x = torch.cat((self.prefix.to(x.dtype).expand(x.shape[0], -1, -1), x), dim=1)
        maps: list[torch.Tensor] = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.taken:
                tokens = self.norm(x)[:, self.prefix_length :].transpose(1, 2)
                maps.append(tokens.reshape(x.shape[0], -1, height, width))
        return maps

    def _positions(self, height: int, width: int) -> torch.Tensor:
        """(1, height * width, C)."""
        if height == self.grid and width == self.grid:
            return self.pos_embed
        learnt = self.pos_embed.float().transpose(1, 2).reshape(1, -1, self.grid, self.grid)
        found = F.interpolate(learnt, [height, width], mode="bicubic", antialias=True)
        return found.flatten(2).transpose(1, 2).to(self.pos_embed.dtype)
