"""Overlapping tiles and their blending, for images in memory and for slides of any height.

Along each axis tiles are spread evenly and start at multiples of 8 (or of 16), so that a network
that halves its input three (or four) times sees the same grid in every tile. Where tiles overlap,
they are cross-faded in the middle half of the overlap; the outer quarters, where a tile knows least
of its surroundings, do not count. The windows are divided by their sum beforehand, axis by axis, so
blending is one multiply-add.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from genselfdiff.choices import SIZE_MULTIPLE
from genselfdiff.errors import InputError
from genselfdiff.inference.segmenter import mirrored_indices

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
        """(tiles, tile) float32 weights; at every pixel those of all tiles sum to 1."""
        edges = np.arange(self.tile, dtype=np.float64) + 0.5
        windows = np.ones((len(self.starts), self.tile))
        total = np.zeros(self.padded)
        for i, start in enumerate(self.starts):
            if i > 0:
                windows[i] *= _rise(edges, self.tile - (start - self.starts[i - 1]))
            if i + 1 < len(self.starts):
                windows[i] *= _rise(edges[::-1], self.tile - (self.starts[i + 1] - start))
            total[start : start + self.tile] += windows[i]
        for i, start in enumerate(self.starts):
            windows[i] /= total[start : start + self.tile]
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
        pixels = pixels[mirrored_indices(pixels.shape[0], height).numpy()]
    if pixels.shape[1] != width:
        pixels = pixels[:, mirrored_indices(pixels.shape[1], width).numpy()]
    return pixels


def to_batch(tiles: Sequence[Uint8]) -> torch.Tensor:
    """N tiles (h, w, 3) as one uint8 (N, 3, h, w) tensor, channels last in memory."""
    return torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2)


class RowBlender:
    """Blends tiles, from left to right and one row of the grid after another.

    What is finished leaves at once, so that of the image only those rows are held in which tiles of
    the row above reach into the next.

    Args:
        rows, columns: the grid.
        channels: of the tiles; the first is that of class 0.
    """

    def __init__(self, rows: TileAxis, columns: TileAxis, channels: int) -> None:
        self._rows = rows
        self._columns = columns
        self._row = rows.needed.start
        self._vertical = torch.from_numpy(rows.windows())
        self._horizontal = torch.from_numpy(columns.windows())
        self._left = columns.starts[columns.needed.start]
        width = columns.starts[columns.needed.stop - 1] + columns.tile - self._left
        deepest = max((rows.tile - rows.step(i) for i in rows.needed[:-1]), default=0)
        self._canvas = torch.zeros(channels, rows.tile, columns.tile)
        self._carried = torch.zeros(channels, deepest, width)
        self._carried_rows = 0

    def add(self, column: int, probabilities: torch.Tensor | None) -> Float32:
        """Add the next needed tile of the current row.

        Args:
            column: its place in the row.
            probabilities: (C, tile, tile) float32 on the CPU; None: class 0.

        Returns:
            (C, n, w) of what is shown and final now, the next columns of the next n rows; valid
            until the next call.
        """
        columns, tile, canvas = self._columns, self._columns.tile, self._canvas
        start = columns.starts[column] - self._left
        kept = tile - columns.step(column - 1) if column > columns.needed.start else 0
        held = canvas.numpy()  # NumPy copies within an array well, even where both parts overlap
        held[:, :, :kept] = held[:, :, tile - kept :]
        window = torch.outer(self._vertical[self._row], self._horizontal[column])
        if probabilities is None:
            canvas[:, :, kept:] = 0
            canvas[0, :, kept:] = window[:, kept:]
            canvas[0, :, :kept] += window[:, :kept]
        else:
            torch.mul(probabilities[:, :, kept:], window[:, kept:], out=canvas[:, :, kept:])
            canvas[:, :, :kept].addcmul_(probabilities[:, :, :kept], window[:, :kept])
        above = self._carried_rows
        canvas[:, :above, kept:] += self._carried[:, :above, start + kept : start + tile]

        is_last = column == columns.needed[-1]
        done = tile if is_last else columns.step(column)
        top, rows = self._rows.starts[self._row], self._rows.finished(self._row)
        below = self._rows.tile
        if self._row != self._rows.needed[-1]:
            below = self._rows.step(self._row)
            further = self._rows.tile - below
            self._carried[:, :further, start : start + done] = canvas[:, below:, :done]
        if is_last:
            self._row += 1
            self._carried_rows = self._rows.tile - below
        shown = columns.finished(column)
        left = columns.starts[column]
        finished: Float32 = held[
            :, rows.start - top : rows.stop - top, shown.start - left : shown.stop - left
        ]
        return finished


def predict_image(
    model_fn: Callable[[torch.Tensor], torch.Tensor],
    image: Uint8,
    *,
    tile_size: int,
    overlap: float = 0.25,
    multiple: int = SIZE_MULTIPLE,
    batch_size: int = 1,
    device: str | torch.device = "cpu",
) -> Float32:
    """Predict an image in memory tile by tile.

    Args:
        model_fn: (N, 3, h, w) uint8 on ``device`` to (N, C, h, w) float32 probabilities; h and w
            are multiples of ``multiple``.
        image: (H, W, 3) uint8 RGB.
        tile_size: side of the tiles in pixels; a smaller image is one tile.
        overlap: fraction of a tile that it shares with its neighbour, 0 to 0.5.
        multiple: of which the sides of tiles are.
        batch_size: tiles predicted at once.
        device: where ``model_fn`` wants its input.

    Returns:
        (C, H, W) float32.

    Raises:
        InputError: sizes out of range.
    """
    rows = tile_axis(image.shape[0], tile_size, overlap, multiple)
    columns = tile_axis(image.shape[1], tile_size, overlap, multiple)
    padded = mirror_to(image, rows.padded, columns.padded)
    blender: RowBlender | None = None
    bands: list[Float32] = []
    for y in rows.starts:
        blocks: list[Float32] = []
        for first in range(0, len(columns.starts), batch_size):
            starts = columns.starts[first : first + batch_size]
            tiles = [padded[y : y + rows.tile, x : x + columns.tile] for x in starts]
            with torch.inference_mode():
                probabilities = model_fn(to_batch(tiles).to(device)).cpu()
            if blender is None:
                blender = RowBlender(rows, columns, probabilities.shape[1])
            for i, tile in enumerate(probabilities):
                blocks.append(blender.add(first + i, tile).copy())
        bands.append(np.concatenate(blocks, axis=2))
    return np.concatenate(bands, axis=1)


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
