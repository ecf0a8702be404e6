"""The tiles of a slide that are predicted: which, in which order, and what becomes of them."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from genselfdiff.choices import SIZE_MULTIPLE
from genselfdiff.inference.blending import RowBlender
from genselfdiff.inference.tiles import TileAxis, mirror_to, tile_axis, to_batch
from genselfdiff.slides import ScaledView, TissueMap


@dataclass(frozen=True)
class TileGrid:
    """The tiles of a view.

    ``wanted`` has for each row of tiles the columns to predict: none of those not needed for
    what is shown of the view, of the others perhaps only those with tissue.
    """

    rows: TileAxis
    columns: TileAxis
    wanted: tuple[tuple[int, ...], ...]

    @classmethod
    def of(
        cls,
        view: ScaledView,
        tile_size: int,
        overlap: float,
        rows: range,
        columns: range,
        multiple: int = SIZE_MULTIPLE,
    ) -> "TileGrid":
        """All tiles that count for the pixels of ``view`` in ``rows`` and ``columns``.

        Raises:
            InputError: ``tile_size`` or ``overlap`` out of range.
        """
        down = tile_axis(view.height, tile_size, overlap, multiple).showing(rows)
        across = tile_axis(view.width, tile_size, overlap, multiple).showing(columns)
        return cls(down, across, (tuple(across.needed),) * len(down.needed))

    def showing(self, rows: range, columns: range) -> "TileGrid":
        """Only the tiles that count for the pixels of the view in ``rows`` and ``columns``."""
        down, across = self.rows.showing(rows), self.columns.showing(columns)
        first = self.rows.needed.start
        kept = self.wanted[down.needed.start - first : down.needed.stop - first]
        wanted = tuple(tuple(i for i in indices if i in across.needed) for indices in kept)
        return TileGrid(down, across, wanted)

    @property
    def tiles(self) -> int:
        """How many tiles are predicted."""
        return sum(map(len, self.wanted))

    @property
    def skipped(self) -> int:
        """How many of those needed are not predicted, for want of tissue."""
        return len(self.rows.needed) * len(self.columns.needed) - self.tiles

    def window(self, scale: float) -> tuple[int, int, int, int]:
        """(x, y, width, height) in level-0 pixels of what the needed tiles show."""
        (x, width), (y, height) = (
            (spans[0][0], spans[-1][0] + spans[-1][1] - spans[0][0])
            for spans in (_level0_spans(self.columns, scale), _level0_spans(self.rows, scale))
        )
        return x, y, width, height

    def on_tissue(self, tissue: TissueMap, scale: float) -> "TileGrid":
        """Only the tiles with any tissue; ``scale`` is a view pixel in level-0 pixels."""
        across = dict(zip(self.columns.needed, _level0_spans(self.columns, scale), strict=True))
        wanted = tuple(
            tuple(i for i, (x, w) in across.items() if tissue.any(x, y, w, h))
            for y, h in _level0_spans(self.rows, scale)
        )
        return replace(self, wanted=wanted)

    def batches(self, view: ScaledView, batch_size: int) -> Iterator[Callable[[], torch.Tensor]]:
        """Readers of the batches of wanted tiles, uint8 (batch_size, 3, tile, tile).

        The tiles of a batch are of one row. Where that has no more, the last is repeated, for which
        way a network computes may depend on the shape of what it is given.
        """
        view.expect(self._windows())
        for row, indices in zip(self.rows.needed, self.wanted, strict=True):
            # The row before may still be being read.
            view.forget_above(self.rows.starts[max(row - 1, 0)])
            for first in range(0, len(indices), batch_size):
                places = [(row, column) for column in indices[first : first + batch_size]]
                yield partial(self.read_batch, view, places, batch_size)

    def _windows(self) -> Iterator[tuple[int, int, int, int]]:
        """x, y, width and height in pixels of the view of each wanted tile, within the view."""
        for row, indices in zip(self.rows.needed, self.wanted, strict=True):
            for column in indices:
                yield self._window_of(row, column)

    def _window_of(self, row: int, column: int) -> tuple[int, int, int, int]:
        y, x = self.rows.starts[row], self.columns.starts[column]
        height = min(self.rows.tile, self.rows.length - y)
        width = min(self.columns.tile, self.columns.length - x)
        return x, y, width, height

    def sample(self, view: ScaledView, count: int) -> Iterator[torch.Tensor]:
        """Up to ``count`` of the wanted tiles, evenly spread: each uint8 (1, 3, tile, tile)."""
        ends = list(accumulate(map(len, self.wanted)))
        count = min(count, self.tiles)
        for i in range(count):
            index = (2 * i + 1) * self.tiles // (2 * count)
            row = bisect_right(ends, index)
            column = self.wanted[row][index - ends[row]]  # counted from the row's end
            yield to_batch([self._read_tile(view, self.rows.needed[row], column)])

    def read_batch(
        self, view: ScaledView, places: Sequence[tuple[int, int]], batch_size: int
    ) -> torch.Tensor:
        """Read tiles by row and column, uint8 (batch_size, 3, tile, tile); see ``batches``."""
        tiles = [self._read_tile(view, row, column) for row, column in places]
        return to_batch(tiles + tiles[-1:] * (batch_size - len(tiles)))

    def _read_tile(self, view: ScaledView, row: int, column: int) -> NDArray[np.uint8]:
        tile = view.read(*self._window_of(row, column))
        return mirror_to(tile, self.rows.tile, self.columns.tile)

    def blend(
        self, predicted: Iterator[torch.Tensor], channels: int, bar: "tqdm[NoReturn]"
    ) -> Iterator[Iterator[NDArray[np.float32]]]:
        """For each row of tiles, what is shown and final with it: (C, n, w), from left to right.

        Tiles that are not wanted are class 0. Each row is to be taken whole before the next.

        Args:
            predicted: (batch_size, C, tile, tile) of each of ``batches``.
            channels: C.
            bar: counts the tiles.
        """
        blender = RowBlender(self.rows, self.columns, channels)

        def row(wanted: Sequence[int]) -> Iterator[NDArray[np.float32]]:
            present = set(wanted)
            tiles = _first(len(wanted), predicted)
            for column in self.columns.needed:
                block = blender.add(column, next(tiles) if column in present else None)
                bar.update(column in present)
                yield block

        for indices in self.wanted:
            yield row(indices)


def _first(count: int, batches: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The first tiles of the next batches; what is left of the last is dropped."""
    while count:
        batch = next(batches)[:count]
        count -= len(batch)
        yield from batch


def _level0_spans(axis: TileAxis, scale: float) -> list[tuple[int, int]]:
    """(start, size) in level-0 pixels of what each needed tile along an axis shows of the slide."""
    spans = []
    for start in (axis.starts[index] for index in axis.needed):
        begin = int(start * scale)
        end = int(min(start + axis.tile, axis.length) * scale)
        spans.append((begin, max(end - begin, 1)))
    return spans
