"""The U-Net of GenSelfDiff-HIS: noise predictor in stage 1, segmenter in stage 2.

The module tree spells the state-dict keys of the authors' checkpoints (all under ``net.``), which
is why parameters sit in small holders named ``fn`` and ``to_out``; the arithmetic is in the ops of
``genselfdiff.kernels``. Everything here compiles with torch.jit.script, and blocks keep their
operation as an attribute so that ``models.export`` can choose what it compiles to.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
import torch.nn.functional as F
from torch import nn

from genselfdiff.kernels import group_norm_silu, linear_attention
from genselfdiff.models.convolutions import Conv3x3, Enlarge, Halve

GROUPS: Final = 8
HEADS: Final = 4
HEAD_DIM: Final = 32


class SinusoidalEmbedding(nn.Module):
    """(N,) integer time steps to (N, dim): sines, then cosines, of geometric frequencies."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.half_dim = dim // 2

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        """(N,) int64 to (N, 2 * (dim // 2)) float64 (float32 on MPS)."""
        # float32 phases would be off by 1e-5 at t = 999; MPS has no float64.
        dtype = torch.float32 if t.device.type == "mps" else torch.float64
        exponent = torch.arange(self.half_dim, dtype=dtype, device=t.device) / (self.half_dim - 1)
        phase = t.to(dtype)[:, None] * torch.exp(-math.log(10000.0) * exponent)[None, :]
        return torch.cat((phase.sin(), phase.cos()), dim=1)


class TimeMlp(nn.Sequential):
    """Time steps to the (N, 4 * width) embedding that every residual block reads."""

    def __init__(self, width: int) -> None:
        super().__init__(
            SinusoidalEmbedding(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, 4 * width),
        )

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        """(N,) int64 to (N, 4 * width)."""
        y = self[0](t).to(self[1].weight.dtype)
        return self[3](self[2](self[1](y)))


class ConvNormSilu(nn.Module):
    """3x3 convolution, GroupNorm(8), SiLU; then the optional shift and residual are added."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj: nn.Module = Conv3x3(in_channels, out_channels)
        self.norm = nn.GroupNorm(GROUPS, out_channels)
        self.group_norm_silu = group_norm_silu

    def forward(
        self,
        x: torch.Tensor,
        shift: torch.Tensor | None = None,
        residual: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(N, in, H, W) to (N, out, H, W); ``shift`` (N, out), ``residual`` (N, out, H, W)."""
        norm = self.norm
        return self.group_norm_silu(
            self.proj(x), norm.weight, norm.bias, norm.num_groups, shift, residual, norm.eps
        )


class ResidualBlock(nn.Module):
    """Two ConvNormSilu with the time shift between them, and a shortcut around both."""

    def __init__(self, in_channels: int, out_channels: int, time_dim: int) -> None:
        super().__init__()
        self.mlp: nn.Module = nn.Sequential(nn.SiLU(), nn.Linear(time_dim, out_channels))
        self.block1 = ConvNormSilu(in_channels, out_channels)
        self.block2 = ConvNormSilu(out_channels, out_channels)
        self.res_conv = _shortcut(in_channels, out_channels)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """(N, in, H, W) and the time embedding (N, 4 * width) to (N, out, H, W)."""
        h = self.block1(x, self.mlp(time))
        return self.block2(h, None, self.res_conv(x))


class HeadBlock(nn.Module):
    """The residual block of the output head: no time input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block1 = ConvNormSilu(channels, channels)
        self.block2 = ConvNormSilu(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the same shape."""
        return self.block2(self.block1(x), None, x)


class DetailBlock(nn.Module):
    """Brings what was reduced by two back to the stem's resolution, and adds the stem to it."""

    def __init__(self, in_channels: int, stem: int) -> None:
        super().__init__()
        self.enlarge = Enlarge(in_channels, stem)
        self.block = ConvNormSilu(stem, stem)

    def forward(self, x: torch.Tensor, stem: torch.Tensor) -> torch.Tensor:
        """(N, in, H / 2, W / 2) and (N, stem, H, W) to the shape of the latter."""
        x = self.enlarge(x) + stem
        return self.block(x, None, x)


def _shortcut(in_channels: int, out_channels: int) -> nn.Module:
    if in_channels == out_channels:
        return nn.Identity()
    return nn.Conv2d(in_channels, out_channels, 1)


class PreNorm(nn.Module):
    """Parameter holder: a GroupNorm(1) and the attention that reads its output."""

    if TYPE_CHECKING:  # hidden from TorchScript, which knows the real types
        fn: Any

    def __init__(self, channels: int, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn
        self.norm = nn.GroupNorm(1, channels)


class LinearAttentionWeights(nn.Module):
    """Parameter holder of LinearAttentionBlock."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.to_qkv = nn.Conv2d(channels, 3 * HEADS * HEAD_DIM, 1, bias=False)
        self.to_out = nn.Sequential(
            nn.Conv2d(HEADS * HEAD_DIM, channels, 1), nn.GroupNorm(1, channels)
        )


class LinearAttentionBlock(nn.Module):
    """x + LinearAttention(GroupNorm(1)(x)): attention linear in the number of pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = HEADS
        self.fn = PreNorm(channels, LinearAttentionWeights(channels))
        self.linear_attention = linear_attention

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the same shape."""
        norm = self.fn.norm
        weights = self.fn.fn
        conv = weights.to_out[0]
        out_norm = weights.to_out[1]
        bias = conv.bias
        assert bias is not None  # for TorchScript, which sees an optional
        return self.linear_attention(
            x,
            norm.weight,
            norm.bias,
            weights.to_qkv.weight,
            conv.weight,
            bias,
            out_norm.weight,
            out_norm.bias,
            self.heads,
            norm.eps,
        )


class SoftmaxAttentionWeights(nn.Module):
    """Parameter holder of SoftmaxAttentionBlock."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.to_qkv = nn.Conv2d(channels, 3 * HEADS * HEAD_DIM, 1, bias=False)
        self.to_out = nn.Conv2d(HEADS * HEAD_DIM, channels, 1)


class SoftmaxAttentionBlock(nn.Module):
    """x + Attention(GroupNorm(1)(x)): ordinary attention over the pixels of the bottleneck."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = HEADS
        self.fn = PreNorm(channels, SoftmaxAttentionWeights(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the same shape."""
        n, c, height, width = x.shape
        weights = self.fn.fn
        tokens = self.fn.norm(x).permute(0, 2, 3, 1).reshape(n, height * width, c)
        qkv = F.linear(tokens, weights.to_qkv.weight.flatten(1))
        q, k, v = qkv.reshape(n, height * width, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        y = F.linear(y, weights.to_out.weight.flatten(1), weights.to_out.bias)
        return x + y.reshape(n, height, width, c).permute(0, 3, 1, 2)


class Net(nn.Module):
    """Encoder, bottleneck, decoder and head: what the keys call ``net``."""

    if TYPE_CHECKING:  # hidden from TorchScript, which knows the real types
        downs: Any
        ups: Any

    def __init__(
        self, width: int, multipliers: Sequence[int], out_channels: int, stride: int
    ) -> None:
        super().__init__()
        widths = [width * m for m in multipliers]
        self.place = min(stride, 2)  # side in pixels of what the stem makes one of
        stem = 2 * (width // 3)
        self.reduce: nn.Module | None = None
        self.detail: nn.Module | None = None
        if stride == 4:
            stem = GROUPS * max(1, stem // GROUPS)
            self.reduce = Halve(stem)
            self.detail = DetailBlock(width, stem)
        time_dim = 4 * width
        self.init_conv = nn.Conv2d(3, stem, 7, self.place, padding=3)
        self.time_mlp: nn.Module = TimeMlp(width)

        self.downs = nn.ModuleList()
        for level, (before, after) in enumerate(zip([stem, *widths[:-1]], widths, strict=True)):
            last = level == len(widths) - 1
            self.downs.append(
                nn.ModuleList(
                    (
                        ResidualBlock(before, after, time_dim),
                        ResidualBlock(after, after, time_dim),
                        LinearAttentionBlock(after),
                        nn.Identity() if last else Halve(after),
                    )
                )
            )

        bottom = widths[-1]
        self.mid_block1 = ResidualBlock(bottom, bottom, time_dim)
        self.mid_attn = SoftmaxAttentionBlock(bottom)
        self.mid_block2 = ResidualBlock(bottom, bottom, time_dim)

        self.ups = nn.ModuleList()
        for after, before in zip(widths[-2::-1], widths[:0:-1], strict=True):
            self.ups.append(
                nn.ModuleList(
                    (
                        ResidualBlock(2 * before, after, time_dim),
                        ResidualBlock(after, after, time_dim),
                        LinearAttentionBlock(after),
                        Enlarge(after, after),
                    )
                )
            )
        # Pixels that share a place of the stem are channels of the head.
        channels = width if self.detail is None else stem
        self.final_conv = nn.Sequential(
            HeadBlock(width), nn.Conv2d(channels, out_channels * self.place**2, 1)
        )

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """As `UNet.forward`."""
        time = self.time_mlp(t)
        x = self.init_conv(x)
        stem = x
        if self.reduce is not None:
            x = self.reduce(x)
        skips: list[torch.Tensor] = []
        for level in self.downs:
            x = level[0](x, time)
            x = level[1](x, time)
            x = level[2](x)
            skips.append(x)
            x = level[3](x)
        x = self.mid_block1(x, time)
        x = self.mid_attn(x)
        x = self.mid_block2(x, time)
        # The skip of the first encoder level stays unused, as in the published network.
        for level in self.ups:
            x = torch.cat((x, skips.pop()), dim=1)
            x = level[0](x, time)
            x = level[1](x, time)
            x = level[2](x)
            x = level[3](x)
        x = self.final_conv[0](x)
        if self.detail is not None:
            x = self.detail(x, stem)
        x = self.final_conv[1](x)
        return x if self.place == 1 else F.pixel_shuffle(x, self.place)


class UNet(nn.Module):
    """``forward(x, t)``: predicted noise (stage 1) or logits (stage 2).

    Args:
        width: channels of the first level; divisible by 8.
        multipliers: width of each level in units of ``width``.
        out_channels: 3 for noise, the number of classes for a segmenter.
        stride: the levels see this part of the resolution. With 2, it is that of the first
            convolution, and the head gives 2 x 2 pixels a place (sub-pixel convolution, Shi et al.,
            CVPR 2016); with 4, another convolution follows the first, and behind the last level one
            block works with what the first has given.

    Attributes:
        size_multiple: heights and widths must be multiples of this.
    """

    def __init__(
        self, width: int, multipliers: Sequence[int], out_channels: int, stride: int = 1
    ) -> None:
        super().__init__()
        self.size_multiple = stride * 2 ** (len(multipliers) - 1)
        self.net = Net(width, multipliers, out_channels, stride)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """x: (N, 3, H, W), multiples of `size_multiple`; t: (N,) int64; (N, out_channels, H, W)."""
        return self.net(x, t)
