"""Tiles that a level of a pyramid lacks while a finer one has them: they are made of those.

Some encoders forget tiles and list them with no bytes; OpenSlide fills them in the same way. What
such an encoder made the next levels of was not the slide either, so their tiles are made anew too.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from genselfdiff.slides.stored.stored_image import StoredLevel

Uint8 = NDArray[np.uint8]
Bool = NDArray[np.bool_]
Indices = NDArray[np.intp]

_PIXELS_AT_ONCE = 2**22
"""Of the finer level: one tile may cover far more of it than memory should hold."""


class TileMap:
    """Where the tiles of a level are.

    Args:
        level: the level.
        stored: (rows, columns), True for the tiles that are in the file.
        finer: the map of the next larger level, if there is one.
    """

    def __init__(self, level: StoredLevel, stored: Bool, finer: "TileMap | None" = None) -> None:
        self._level = level
        self._finer = finer
        self._present, self._rebuilt = stored, np.zeros_like(stored)
        if finer is None:
            return
        fine = finer._level
        self._across = _Axis(level.width, level.piece_width, fine.width, fine.piece_width)
        self._down = _Axis(level.height, level.piece_height, fine.height, fine.piece_height)
        if not stored.all() or finer._rebuilt.any():
            forgotten = ~stored & self._any_below(finer._present)
            self._rebuilt = forgotten | self._any_below(finer._rebuilt)
            self._present = stored | forgotten

    def is_rebuilt(self, column: int, row: int) -> bool:
        """Whether a tile has to be made of the finer level, as it is missing or not the slide."""
        return bool(self._rebuilt[row, column])

    def rebuild(self, column: int, row: int) -> Uint8:
        """Make a tile of the finer level: (h, w, 3) RGB, without what lies beyond the edge."""
        assert self._finer is not None
        level, fine = self._level, self._finer._level
        x, y = column * level.piece_width, row * level.piece_height
        width = min(level.piece_width, level.width - x)
        height = min(level.piece_height, level.height - y)
        x0, x1 = x * self._across.scale, (x + width) * self._across.scale
        tile = np.empty((height, width, 3), np.uint8)
        rows = max(1, int(_PIXELS_AT_ONCE / ((x1 - x0) * self._down.scale)))
        for start in range(0, height, rows):
            end = min(start + rows, height)
            y0, y1 = (y + start) * self._down.scale, (y + end) * self._down.scale
            left, top = int(x0), int(y0)
            pixels = Image.fromarray(_read(fine, left, top, math.ceil(x1), math.ceil(y1)))
            box = x0 - left, y0 - top, x1 - left, y1 - top
            small = pixels.resize((width, end - start), Image.Resampling.BOX, box)
            tile[start:end] = np.asarray(small)
        return tile

    def _any_below(self, marked: Bool) -> Bool:
        """Which tiles lie over one of the finer level that is ``marked``."""
        sums = np.zeros((marked.shape[0] + 1, marked.shape[1] + 1), np.int64)
        sums[1:, 1:] = marked.cumsum(axis=0).cumsum(axis=1)
        top, bottom = self._down.touched(self._present.shape[0], marked.shape[0])
        left, right = self._across.touched(self._present.shape[1], marked.shape[1])
        between = sums[:, right] - sums[:, left]
        found: Bool = between[bottom] > between[top]
        return found


@dataclass(frozen=True)
class _Axis:
    """One direction of a level and the next finer one: their pixels, and those of their tiles."""

    size: int
    piece: int
    fine_size: int
    fine_piece: int

    @property
    def scale(self) -> float:
        """Pixels of the finer level a pixel; a whole number if rounding explains the sizes."""
        ratio = self.fine_size / self.size
        whole = max(1, round(ratio))
        return whole if abs(self.fine_size / whole - self.size) < 1 else ratio

    def touched(self, count: int, fine_count: int) -> tuple[Indices, Indices]:
        """First and, exclusive, last of ``fine_count`` tiles that each of ``count`` lies over."""
        edges = np.minimum(np.arange(count + 1) * self.piece, self.size) * self.scale
        first = np.floor(edges[:-1] / self.fine_piece).astype(np.intp)
        last = np.ceil(edges[1:] / self.fine_piece).astype(np.intp)
        return first, np.minimum(last, fine_count)


def _read(level: StoredLevel, left: int, top: int, right: int, bottom: int) -> Uint8:
    """Read a window that may go beyond the right and lower edge, which are then repeated.

    So the last pixels of a coarser level cover as much as the others, at an odd size as well.
    """
    width, height = min(right, level.width) - left, min(bottom, level.height) - top
    pixels = level.read(left, top, width, height)
    beyond = (0, bottom - top - height), (0, right - left - width), (0, 0)
    return np.pad(pixels, beyond, mode="edge") if np.any(beyond) else pixels
