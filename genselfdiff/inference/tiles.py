"""Overlapping tiles of an image of any size, along each of its axes, and their pixels.

Along each axis tiles are spread evenly and start at multiples of 8 (or of 16), so that a network
that halves its input three (or four) times sees the same grid in every tile. Where tiles overlap,
they are cross-faded in the middle half of the overlap; the outer quarters, where a tile knows least
of its surroundings, do not count. The windows are divided by their sum beforehand, axis by axis, so
blending is one multiply-add.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from genselfdiff.choices import SIZE_MULTIPLE
from genselfdiff.errors import InputError
from genselfdiff.models.segmenter import mirrored_indices

Uint8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class TileAxis:
    """Tiles along one axis of an image.

    ``starts`` begins with 0; the last tile ends at ``padded``, the length rounded up to
    ``multiple``. Only the pixels ``shown`` are wanted, and for them only the tiles of the indices
    ``needed``.
    """

    length: int
    tile: int
    multiple: int
    starts: tuple[int, ...]
    shown: range
    needed: range

    @property
    def padded(self) -> int:
        """The length rounded up to ``multiple``."""
        return _round_up(self.length, self.multiple)

    def showing(self, shown: range) -> "TileAxis":
        """The same tiles, of which only those are needed that count for the pixels ``shown``."""
        counts = [
            index
            for index, (start, window) in enumerate(zip(self.starts, self.windows(), strict=True))
            if window[max(shown.start - start, 0) : max(shown.stop - start, 0)].any()
        ]
        return replace(self, shown=shown, needed=range(counts[0], counts[-1] + 1))

    def step(self, index: int) -> int:
        """Pixels from the tile ``index`` to the next."""
        return self.starts[index + 1] - self.starts[index]

    def finished(self, index: int) -> range:
        """Pixels shown that are final with tile ``index``, and were not with the one before."""
        begin, end = self.starts[index], self.shown.stop
        if index + 1 < self.needed.stop:
            end = min(end, self.starts[index + 1])
        begin = max(begin, self.shown.start)
        return range(begin, max(begin, end))

    def windows(self) -> Float32:
        """(tiles, tile) float32 weights; at every pixel those of all tiles sum to 1.

        They are shared by all that ask, and not to be changed.
        """
        return _windows(self.starts, self.tile, self.padded)


@lru_cache(maxsize=8)
def _windows(starts: tuple[int, ...], tile: int, padded: int) -> Float32:
    edges = np.arange(tile, dtype=np.float64) + 0.5
    windows = np.ones((len(starts), tile))
    total = np.zeros(padded)
    for i, start in enumerate(starts):
        if i > 0:
            windows[i] *= _rise(edges, tile - (start - starts[i - 1]))
        if i + 1 < len(starts):
            windows[i] *= _rise(edges[::-1], tile - (starts[i + 1] - start))
        total[start : start + tile] += windows[i]
    for i, start in enumerate(starts):
        windows[i] /= total[start : start + tile]
    return windows.astype(np.float32)


def tile_axis(
    length: int, tile_size: int, overlap: float, multiple: int = SIZE_MULTIPLE
) -> TileAxis:
    """Place tiles of ``tile_size`` pixels that share the fraction ``overlap`` with their neighbour.

    A length below the tile size gets one tile of that length, rounded up to ``multiple``.

    Raises:
        InputError: ``tile_size`` is no positive multiple of ``multiple``, or ``overlap`` not in
            0..0.5.
    """
    if tile_size < multiple or tile_size % multiple:
        raise InputError(f"tile size {tile_size} must be a positive multiple of {multiple}")
    if not 0 <= overlap <= 0.5:
        raise InputError(f"overlap {overlap} must be between 0 and 0.5")
    padded = _round_up(length, multiple)
    tile = min(tile_size, padded)
    stride = tile - round(tile * overlap / multiple) * multiple
    last = padded - tile
    steps = -(-last // stride)
    # Spread evenly: a last tile that is only moved back would overlap the one before by a lot.
    starts = [i * last // steps // multiple * multiple for i in range(1, steps + 1)]
    return TileAxis(length, tile, multiple, (0, *starts), range(length), range(steps + 1))


def mirror_to(pixels: Uint8, height: int, width: int) -> Uint8:
    """Continue (h, w, 3) ``pixels`` to (height, width, 3) by reflection at the bottom and right."""
    if pixels.shape[0] != height:
        pixels = pixels[mirrored_indices(pixels.shape[0], height, torch.device("cpu")).numpy()]
    if pixels.shape[1] != width:
        pixels = pixels[:, mirrored_indices(pixels.shape[1], width, torch.device("cpu")).numpy()]
    return pixels


def to_batch(tiles: Sequence[Uint8]) -> torch.Tensor:
    """N tiles (h, w, 3) as one uint8 (N, 3, h, w) tensor, channels last in memory."""
    return torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2)


def _rise(distance: NDArray[np.float64], overlap: int) -> NDArray[np.float64]:
    """Weight at ``distance`` from a tile's edge: 0 to 1 over the middle half of the overlap.

    The falling side of the neighbour is its complement: sin^2 + cos^2 = 1.
    """
    if overlap == 0:
        return np.ones(len(distance))
    rise: NDArray[np.float64] = np.sin(np.pi / 2 * np.clip(2 * distance / overlap - 0.5, 0, 1)) ** 2
    return rise


def _round_up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple
