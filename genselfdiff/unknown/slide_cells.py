"""The cells of a slide: where they lie, which have tissue, and their statistics."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from genselfdiff.errors import InputError
from genselfdiff.slides import ScaledView, Slide, TissueMap
from genselfdiff.unknown.cell_statistics import STATISTICS, cell_statistics

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]

_TISSUE = 0.5
"""Share of a cell that is tissue, at least."""

_RUN = 64
"""Cells that are read at once, at most: bounds memory."""


class SlideCells:
    """Square cells, edge to edge, over all of a slide.

    The last of a row or column end where the slide does, so that they overlap those before.

    Args:
        slide: an open slide.
        mpp: um/px at which cells are seen.
        side: of a cell in pixels.
        progress: see ``Slide.thumbnail``.

    Attributes:
        view: the slide at ``mpp``.
        wanted: (rows, columns) bool, where cells are tissue.

    Raises:
        InputError: the slide has no mpp, is damaged, or is smaller than a cell.
    """

    def __init__(self, slide: Slide, mpp: float, side: int, progress: bool | None = False) -> None:
        self.view: ScaledView = slide.at_mpp(mpp)
        self.side = side
        if min(self.view.width, self.view.height) < side:
            raise InputError(
                f"{slide.path}: {self.view.width} x {self.view.height} pixels at {mpp:g} um/px are"
                f" less than a cell of {side}"
            )
        self.tops = _starts(self.view.height, side)
        self.lefts = _starts(self.view.width, side)
        scale = self.view.scale
        lefts, tops = ([start * scale for start in starts] for starts in (self.lefts, self.tops))
        tissue = TissueMap(slide, progress=progress)
        shares = tissue.fractions(lefts, tops, side * scale, side * scale)
        self.wanted: Bool = shares >= _TISSUE

    def row(self, row: int) -> Float32:
        """(columns, n) statistics of a row of cells, NaN where there is no tissue."""
        found = np.full((len(self.lefts), len(STATISTICS)), np.nan, np.float32)
        for first, last in _runs(np.flatnonzero(self.wanted[row])):
            left, right = self.lefts[first], self.lefts[last]
            pixels = self.view.read(left, self.tops[row], right + self.side - left, self.side)
            starts = [x - left for x in self.lefts[first : last + 1]]
            cells = np.concatenate([pixels[:, x : x + self.side] for x in starts], axis=1)
            found[first : last + 1] = cell_statistics(cells, self.side)[0]
        return found

    def some(self, count: int, seed: int = 0) -> Float32:
        """(up to count, n) statistics of cells with tissue, drawn at random."""
        places = np.argwhere(self.wanted)
        if len(places) > count:
            drawn = np.random.default_rng(seed).choice(len(places), count, replace=False)
            places = places[np.sort(drawn)]
        corners = [(self.lefts[column], self.tops[row]) for row, column in places]
        return cells_at(self.view, corners, self.side)


def cells_at(view: ScaledView, corners: Sequence[tuple[int, int]], side: int) -> Float32:
    """(cells, n) statistics of cells anywhere, given their (x, y) in pixels of the view."""
    pixels = np.empty((side, len(corners), side, 3), np.uint8)
    for index, (x, y) in enumerate(corners):
        pixels[:, index] = view.read(x, y, side, side)
    return cell_statistics(pixels.reshape(side, -1, 3), side).reshape(-1, len(STATISTICS))


def _starts(length: int, side: int) -> list[int]:
    return [min(i * side, length - side) for i in range(math.ceil(length / side))]


def _runs(columns: Sequence[int] | NDArray[np.integer]) -> Iterable[tuple[int, int]]:
    """First and last of columns that follow each other, at most ``_RUN`` of them."""
    first = last = None
    for column in map(int, columns):
        if first is None or last is None:
            first = last = column
        elif column == last + 1 and column - first < _RUN:
            last = column
        else:
            yield first, last
            first = last = column
    if first is not None and last is not None:
        yield first, last
