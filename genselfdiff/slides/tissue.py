"""Telling tissue from glass on a small picture of the slide."""

import math
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genselfdiff.errors import InputError
from genselfdiff.slides.opening import open_mask
from genselfdiff.slides.scaled_view import ScaledView
from genselfdiff.slides.slide import Slide

Uint8 = NDArray[np.uint8]
Bool = NDArray[np.bool_]


_STAINED = 12.0
"""Grey levels of colour above which a pixel is tissue.

The threshold is absolute: one that adapts to the picture divides every picture, a field of nothing
but tissue as well. Glass stays below 8, compression noise included; pale stroma is above 15.
"""

_SMOOTHING = 5
"""Side in pixels of the square over which colours are averaged: noise goes, tissue joins up."""

_ROWS_AT_ONCE = 32
"""Of a thumbnail: few enough to stay in the processor's cache."""


def tissue_mask(thumbnail: Uint8) -> Bool:
    """Find stained tissue on a thumbnail.

    The measure is how much less green than red or blue is left, for that is what eosin and
    haematoxylin absorb. Other colour counts half: brown stains are strong, while the yellow tint
    of a lamp or of the mounting medium is weak. White, grey and black are not tissue.

    Args:
        thumbnail: (h, w, 3) uint8 RGB.

    Returns:
        (h, w) bool, True where there is tissue.
    """
    tissue = np.empty(thumbnail.shape[:2], np.bool_)
    for top in range(0, len(tissue), _ROWS_AT_ONCE):
        red, green, blue = _box_mean(thumbnail, top, min(top + _ROWS_AT_ONCE, len(tissue)))
        largest = np.maximum(np.maximum(red, green), blue)
        smallest = np.minimum(np.minimum(red, green), blue)
        stained = np.maximum(largest - green, (largest - smallest) / 2)
        tissue[top : top + _ROWS_AT_ONCE] = stained > _STAINED
    return tissue


def _box_mean(picture: Uint8, top: int, bottom: int) -> NDArray[np.float32]:
    """Average (h, w, 3) over squares around the pixels of some rows; edges are continued.

    Returns:
        (3, bottom - top, w) float32: a plane for each colour, in which arithmetic is fast.
    """
    reach = _SMOOTHING // 2
    height, width = picture.shape[:2]
    rows = np.clip(np.arange(top - reach, bottom + reach), 0, height - 1)
    planes = np.empty((3, len(rows), width + 2 * reach), np.uint16)
    planes[..., reach : reach + width] = picture[rows].transpose(2, 0, 1)
    planes[..., :reach] = planes[..., reach : reach + 1]
    planes[..., reach + width :] = planes[..., reach + width - 1 : reach + width]
    sums = planes[:, : bottom - top].copy()
    for i in range(1, _SMOOTHING):
        sums += planes[:, i : i + bottom - top]
    squares = sums[..., :width].copy()
    for i in range(1, _SMOOTHING):
        squares += sums[..., i : i + width]
    return np.divide(squares, _SMOOTHING**2, dtype=np.float32)


def _tissue_in(view: ScaledView, window: tuple[int, int, int, int], progress: bool | None) -> Bool:
    """Find the tissue in ``window``, as it is found on the whole of ``view``."""
    x, y, width, height = (side / view.scale for side in window)
    left, top = max(int(x) - _SMOOTHING, 0), max(int(y) - _SMOOTHING, 0)
    right = min(math.ceil(x + width) + _SMOOTHING, view.width)
    bottom = min(math.ceil(y + height) + _SMOOTHING, view.height)
    mask = np.zeros((view.height, view.width), np.bool_)
    seen = view.read_in_bands(left, top, right - left, bottom - top, progress)
    mask[top:bottom, left:right] = tissue_mask(seen)
    return mask


def _read_mask(path: Path, slide: Slide, max_side: int) -> Bool:
    """Read a mask with its longer side at most ``max_side``: what is not 0 is never lost."""
    with open_mask(path) as file:
        if not slide.shows_field_of(file.width, file.height):
            raise InputError(
                f"{path}: {file.width} x {file.height} pixels do not have the proportions of"
                f" {slide.path} with {slide.width} x {slide.height}; give a mask of that slide"
            )
        shrink = max(max(file.width, file.height) / max_side, 1.0)
        height, width = max(1, int(file.height / shrink)), max(1, int(file.width / shrink))
        enough = [i for i, level in enumerate(file.levels) if level.width >= width]
        index = max(i for i in enough if file.levels[i].height >= height)
        level = file.levels[index]
        mask = np.empty((height, width), np.bool_)
        hides = differs = False
        left = np.arange(width) * level.width // width
        for row in range(height):
            top, bottom = row * level.height // height, (row + 1) * level.height // height
            stored = file.read_level(0, top, level.width, bottom - top, index)
            marked, seen = stored[..., 0], stored[..., 1] > 0
            if stored[..., 2].any():
                raise InputError(
                    f"{path}: its palette shows a number in black, but not 0, which may mean two"
                    " things; save it with 0 as black"
                )
            hides = hides or not seen.all()
            differs = differs or bool((seen != (marked > 0)).any())
            mask[row] = np.maximum.reduceat(marked.max(axis=0), left) > 0
    if hides and differs:
        raise InputError(
            f"{path}: its alpha channel shows another mask than its colours; save it without alpha"
        )
    return mask


class TissueMap:
    """Which parts of a slide are tissue, from a thumbnail of it.

    Args:
        slide: the slide; it is read once, here.
        max_side: longer side of the thumbnail in pixels.
        window: (x, y, width, height) in level-0 pixels: only there tissue is looked for, and only
            there the slide is read. None: everywhere.
        mask_file: an image of the whole slide, of any size, that is not 0 where tissue is; with it
            the slide is not read.
        progress: show a progress bar if reading the slide takes long; None: only on a terminal.

    Attributes:
        mask: (h, w) bool, tissue on the thumbnail.

    Raises:
        InputError: the slide is damaged, or ``mask_file`` cannot be read or is not of this slide.
    """

    def __init__(
        self,
        slide: Slide,
        max_side: int = 2048,
        window: tuple[int, int, int, int] | None = None,
        mask_file: str | Path | None = None,
        progress: bool | None = False,
    ) -> None:
        if mask_file is not None:
            self.mask = _read_mask(Path(mask_file), slide, max_side)
        elif window is None:
            self.mask = tissue_mask(slide.thumbnail(max_side, progress))
        else:
            self.mask = _tissue_in(slide.thumbnail_view(max_side), window, progress)
        self._width, self._height = slide.width, slide.height

    def any(self, x: int, y: int, width: int, height: int) -> bool:
        """Whether a rectangle touches a pixel of the thumbnail that is tissue.

        Args:
            x, y, width, height: the rectangle in level-0 pixels, none below 0.
        """
        rows, columns = self.mask.shape
        # In whole numbers: rounded ones would touch the neighbour of a pixel that ends there.
        top, bottom = y * rows // self._height, -(-(y + height) * rows // self._height)
        left, right = x * columns // self._width, -(-(x + width) * columns // self._width)
        return bool(self.mask[top:bottom, left:right].any())

    def fraction(self, x: float, y: float, width: float, height: float) -> float:
        """Return how much of a rectangle is tissue, 0 to 1; beyond the slide there is none.

        Args:
            x, y, width, height: the rectangle in level-0 pixels.
        """
        return float(self.fractions([x], [y], width, height)[0, 0])

    def fractions(
        self, xs: ArrayLike, ys: ArrayLike, width: float, height: float
    ) -> NDArray[np.float64]:
        """``fraction`` of rectangles of one size, their left sides at ``xs``, their tops at ``ys``.

        Returns:
            (rows, columns) float64, for each of ``ys`` and ``xs``.
        """
        down, across = self.mask.shape[0] / self._height, self.mask.shape[1] / self._width
        left, top = np.asarray(xs) * across, np.asarray(ys) * down
        right, bottom = left + width * across, top + height * down
        tissue = (
            self._sum(bottom, right)
            - self._sum(top, right)
            - self._sum(bottom, left)
            + self._sum(top, left)
        )
        return np.clip(tissue / (width * across * height * down), 0, 1)

    @cached_property
    def _sums(self) -> NDArray[np.int32]:
        """At [j, i] the tissue above row j and left of column i."""
        height, width = self.mask.shape
        sums = np.zeros((height + 1, width + 1), np.int32)
        self.mask.cumsum(axis=0, out=sums[1:, 1:])
        return sums.cumsum(axis=1, out=sums)

    def _sum(self, row: NDArray[np.float64], column: NDArray[np.float64]) -> NDArray[np.float64]:
        """(rows, columns) tissue above each row and left of each column, in parts of pixels too."""
        rows, columns = self.mask.shape
        row, column = np.clip(row, 0, rows), np.clip(column, 0, columns)
        j, i = np.minimum(row.astype(int), rows - 1), np.minimum(column.astype(int), columns - 1)
        down, across = (row - j)[:, None], column - i
        sums = self._sums
        upper = sums[np.ix_(j, i)] * (1 - across) + sums[np.ix_(j, i + 1)] * across
        lower = sums[np.ix_(j + 1, i)] * (1 - across) + sums[np.ix_(j + 1, i + 1)] * across
        return upper * (1 - down) + lower * down
