"""The pages of a pyramid while it is written: what of them waits, and where their tiles lie."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[Any]
"""Of the writer's ``dtype``."""


@dataclass
class Page:
    """A level while it is written.

    Attributes:
        width, height: size in pixels.
        band: (planes, tile, ...) rows of the tiles that are not full yet, of those columns of tiles
            only that the window touches; the first is ``first_column``. The hidden planes are last.
        indent: pixels of the band to the left of what is pushed, which stay 0.
        first_row: row of tiles in which the window begins.
        next_row: the row of tiles that the band will be.
        filled: rows of the band that are there.
        tiles: (planes, rows, columns, 2) offset and size of each tile in the file; 0, 0: not
            stored.
    """

    width: int
    height: int
    band: Pixels
    first_column: int
    indent: int
    first_row: int
    next_row: int
    filled: int
    tiles: NDArray[np.int64]

    def stored(self, row: int) -> NDArray[np.int64]:
        """(planes, columns, 2) part of ``tiles`` that a band of that row makes."""
        columns = -(-self.band.shape[2] // self.band.shape[1])
        return self.tiles[:, row, self.first_column : self.first_column + columns]


def lay_out_pyramid(
    width: int,
    height: int,
    tile: int,
    planes: int,
    hidden: int,
    window: tuple[int, int, int],
    dtype: np.dtype[Any],
) -> list[Page]:
    """Lay out the levels of an image of which ``window`` (x, y, width) is written."""
    x, y, columns = window
    pages: list[Page] = []
    stored = planes + hidden
    while not pages or max(pages[-1].width, pages[-1].height) > tile:
        left = x // tile * tile
        right = min(-(-(x + columns) // tile) * tile, width)
        pages.append(
            Page(
                width,
                height,
                band=np.zeros((stored, tile, right - left), dtype),
                first_column=left // tile,
                indent=x - left,
                first_row=y // tile,
                next_row=y // tile,
                filled=y % tile,
                tiles=np.zeros((stored, -(-height // tile), -(-width // tile), 2), np.int64),
            )
        )
        width, height, stored = (width + 1) // 2, (height + 1) // 2, planes
        # A level passes on whole tiles, which begin at even pixels.
        x, y, columns = left // 2, y // tile * tile // 2, (right - left + 1) // 2
    return pages
