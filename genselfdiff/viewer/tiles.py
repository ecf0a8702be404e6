"""Tiles of slides and masks for a picture that can be zoomed into, as files of JPEG and PNG.

Level 0 is the picture itself, every further one half as large, rounded up, down to one pixel. A
tile is as large as asked for, but at the right and bottom edges.
"""

from contextlib import suppress
from typing import NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from genselfdiff.slides import ScaledView, Slide, open_slide
from genselfdiff.storage.places import Place
from genselfdiff.viewer.layers import Layer
from genselfdiff.viewer.tile_cache import TileCache

Uint8 = NDArray[np.uint8]

LAYER_TILE = 512
"""Side of the tiles of masks, as gsd stores them."""

_SLIDE_TILE = 256
_ALIGNED = range(192, 513)
"""Sides of stored tiles that are shown as they are cut: each is decoded for one tile alone."""

_MOST_REDUCED = 8
"""Stored pixels along a pixel of a tile that are read at once; beyond, tiles are made of tiles, and
a slide without a pyramid is read once for all of them."""

_REDUCED_BYTES = 64 * 2**20

_QUALITY = 88
_COMPRESSION = 1
"""Of PNG: tiles go no further than this machine, mostly."""


class NoTile(Exception):
    """The picture has no such tile."""


class TilePlace(NamedTuple):
    """Level of a tile, and how many tiles are to its left and above it."""

    level: int
    column: int
    row: int


class SlideTiles:
    """The tiles of an open slide.

    Args:
        path: the slide.

    Attributes:
        slide: the slide, open; damaged tiles of it are glass.
        side: of a tile in pixels.

    Raises:
        InputError: as ``open_slide``.
    """

    def __init__(self, path: Place, mpp: float | None = None, icc: bool = False) -> None:
        self.slide: Slide = open_slide(path, mpp=mpp, on_error="blank", icc=icc)
        rows, pixels = self.slide.piece_rows(0), self.slide.piece_pixels(0)
        self._reduced = TileCache(_REDUCED_BYTES)
        self.side = rows if rows in _ALIGNED and pixels == rows * rows else _SLIDE_TILE

    def tile(self, place: TilePlace) -> bytes:
        """Read a tile, as JPEG.

        Raises:
            InputError: the slide cannot be read.
            NoTile: there is none.
        """
        return jpeg(self._pixels(place))

    def _pixels(self, place: TilePlace) -> Uint8:
        """(height, width, 3) RGB of a tile."""
        x, y, width, height = window(place, self.slide.width, self.slide.height, self.side)
        view = ScaledView(self.slide, float(1 << place.level))
        if view.scale > _MOST_REDUCED * self.slide.levels[view.level].downsample:
            data = self._reduced.get(place, lambda: self._of_four(place).tobytes())
            return np.frombuffer(data, np.uint8).reshape(height, width, 3)
        # Sizes are rounded up here, and to the nearest in a view: a last column may be missing.
        right, bottom = min(x + width, view.width), min(y + height, view.height)
        x, y = min(x, right - 1), min(y, bottom - 1)
        pixels = view.read(x, y, right - x, bottom - y)
        missing = (0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0)
        return np.pad(pixels, missing, mode="edge") if np.any(missing) else pixels

    def _of_four(self, place: TilePlace) -> Uint8:
        """A tile as the means of the pixels of the four tiles that show the same larger."""
        level, column, row = place.level - 1, 2 * place.column, 2 * place.row
        rows = []
        for y in (row, row + 1):
            parts = []
            for x in (column, column + 1):
                with suppress(NoTile):  # at an edge
                    parts.append(self._pixels(TilePlace(level, x, y)))
            if parts:
                rows.append(np.concatenate(parts, axis=1))
        pixels = np.concatenate(rows)
        odd = (0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)
        pixels = np.pad(pixels, odd, mode="edge")
        sums = pixels[::2].astype(np.uint16) + pixels[1::2]
        return ((sums[:, ::2] + sums[:, 1::2] + 2) // 4).astype(np.uint8)


def layer_tile(layer: Layer, place: TilePlace, plane: int) -> bytes:
    """Read a tile of ``layer`` as grey PNG, whose pixels are classes or probabilities as bytes.

    Raises:
        InputError: the layer cannot be read.
        NoTile: there is none.
    """
    if plane >= layer.planes:
        raise NoTile
    corner = window(place, layer.width, layer.height, LAYER_TILE)
    return png(layer.read(place.level, *corner, plane))


def window(place: TilePlace, width: int, height: int, side: int) -> tuple[int, int, int, int]:
    """(x, y, width, height) of a tile in pixels of its level.

    Args:
        place: of the tile.
        width, height: of the whole picture.
        side: of a tile.

    Raises:
        NoTile: the picture has no such tile.
    """
    if place.level > levels(width, height) - 1:
        raise NoTile
    across, down = -(-width >> place.level), -(-height >> place.level)
    x, y = place.column * side, place.row * side
    if x >= across or y >= down:
        raise NoTile
    return x, y, min(side, across - x), min(side, down - y)


def levels(width: int, height: int) -> int:
    """How many levels a picture has, with itself and the last of one pixel."""
    return (max(width, height) - 1).bit_length() + 1


def jpeg(pixels: Uint8) -> bytes:
    """(height, width, 3) RGB as JPEG."""
    pixels = np.ascontiguousarray(pixels)
    return bytes(imagecodecs.jpeg8_encode(pixels, level=_QUALITY, subsampling="444"))


def png(pixels: Uint8) -> bytes:
    """(height, width) as grey PNG, (height, width, 3) as RGB."""
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels), level=_COMPRESSION))
