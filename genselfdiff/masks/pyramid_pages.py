"""The pages of a pyramid while it is written: their sizes, what waits, where their tiles lie."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genselfdiff.slides.window import check_window

Pixels = NDArray[Any]
"""Of the writer's ``dtype``."""

STORED_MPP = (1e-4, 1e6)
"""Range of um/px that a file can tell."""


@dataclass(frozen=True)
class PyramidShape:
    """How large an image is, and in which pieces it is stored.

    Attributes:
        width, height: size in pixels.
        mpp: micrometres per pixel for the resolution tags; None leaves them without unit.
        window: (x, y, width, height), the part that is written; the rest is 0 and takes neither
            time nor memory. None: all of it.
        tile: side of the stored tiles, a multiple of 16.

    Raises:
        ValueError: one of them is out of range.
    """

    width: int
    height: int
    mpp: float | None
    window: tuple[int, int, int, int] | None = None
    tile: int = 512

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"a mask of {self.width} x {self.height} pixels holds nothing")
        if self.tile < 16 or self.tile % 16:
            raise ValueError(f"tile side {self.tile} is not a positive multiple of 16")
        if self.mpp is not None and not STORED_MPP[0] <= self.mpp <= STORED_MPP[1]:
            raise ValueError(f"{self.mpp} micrometres per pixel is no resolution of a mask")
        check_window(*self.written, self.width, self.height)

    @property
    def written(self) -> tuple[int, int, int, int]:
        """The window, also where it is the whole."""
        return self.window or (0, 0, self.width, self.height)


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
    shape: PyramidShape, planes: int, hidden: int, dtype: np.dtype[Any]
) -> list[Page]:
    """Lay out the levels of an image; only the first has the ``hidden`` planes."""
    width, height, tile = shape.width, shape.height, shape.tile
    x, y, columns, _ = shape.written
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
