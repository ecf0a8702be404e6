"""Named architectures."""

from collections.abc import Sequence
from dataclasses import dataclass

from genselfdiff.errors import InputError
from genselfdiff.models.unet import GROUPS, UNet


@dataclass(frozen=True)
class Architecture:
    """What a name stands for."""

    width: int
    multipliers: tuple[int, ...]
    stride: int = 1

    @property
    def size_multiple(self) -> int:
        """See ``UNet``."""
        return self.stride * 2 ** (len(self.multipliers) - 1)


_BY_NAME = {
    "paper": Architecture(64, (1, 2, 4, 8)),
    "small": Architecture(32, (1, 2, 4, 8)),
    "fast": Architecture(32, (1, 2, 4, 6), stride=2),
    "fastest": Architecture(48, (1, 2, 3, 4), stride=4),
    "tiny": Architecture(16, (1, 2, 2, 4)),
}


def architecture(name: str) -> Architecture:
    """What one of ``choices.ARCHITECTURES`` stands for.

    Raises:
        InputError: unknown name.
    """
    if name not in _BY_NAME:
        raise InputError(f"no architecture {name!r}; there are: {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def create_model(
    name: str,
    *,
    out_channels: int = 3,
    width: int | None = None,
    multipliers: Sequence[int] | None = None,
) -> UNet:
    """Build a network with fresh weights.

    Args:
        name: one of ``choices.ARCHITECTURES``.
        out_channels: 3 to predict noise, the number of classes to segment.
        width: channels of the first level instead of the architecture's own; divisible by 8.
        multipliers: four level widths in units of ``width`` instead of the architecture's own.

    Raises:
        InputError: unknown name, or sizes that the network cannot be built with.
    """
    named = architecture(name)
    width = named.width if width is None else width
    multipliers = named.multipliers if multipliers is None else tuple(multipliers)
    if width < GROUPS or width % GROUPS:
        raise InputError(f"width {width} must be a positive multiple of {GROUPS}")
    if len(multipliers) != 4 or min(multipliers) < 1:
        raise InputError(f"multipliers {multipliers} must be four positive numbers")
    if out_channels < 1:
        raise InputError(f"out_channels {out_channels} must be at least 1")
    return UNet(width, multipliers, out_channels, named.stride)
