"""Squares of a slide that are predicted one by one, and what is kept of them."""

import zlib
from collections import OrderedDict
from threading import Lock
from typing import NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from genselfdiff.masks.mask_writer import halve_labels
from genselfdiff.viewer.tiles import LAYER_TILE, TilePlace, window

Uint8 = NDArray[np.uint8]

BLOCK = 512
"""Side of a block in pixels of level 0: a tile of the page at that level."""

COARSEST = 5
"""Levels up to this one are shown: a tile of it is made of 32 x 32 blocks."""

_COMPRESSION = 1


class Block(NamedTuple):
    """A block of a slide: how many are to its left, and above it."""

    column: int
    row: int

    def window(self, width: int, height: int) -> tuple[int, int, int, int]:
        """(x, y, width, height) in pixels of level 0 of a slide of that size."""
        return window(TilePlace(0, *self), width, height, BLOCK)


def blocks_in(x: int, y: int, width: int, height: int) -> list[Block]:
    """The blocks that a window in pixels of level 0 touches, from its middle outwards."""
    middle_x, middle_y = x + width / 2, y + height / 2
    found = [
        Block(column, row)
        for row in range(y // BLOCK, -(-(y + height) // BLOCK))
        for column in range(x // BLOCK, -(-(x + width) // BLOCK))
    ]

    def distance(block: Block) -> float:
        across = (block.column + 0.5) * BLOCK - middle_x
        return across**2 + ((block.row + 0.5) * BLOCK - middle_y) ** 2

    return sorted(found, key=distance)


class Picture(NamedTuple):
    """What is shown together: the model that predicts, and the slide, both by their numbers."""

    model: int
    slide: int


class BlockStore:
    """The labels of blocks that were predicted, of all slides; threads may use it at once.

    Args:
        capacity: bytes that are kept; those go that nobody has looked at for longest.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._held = 0
        self._kept: OrderedDict[tuple[Picture, Block], list[bytes]] = OrderedDict()
        self._put: dict[Picture, list[Block]] = {}
        self._lock = Lock()

    def put(self, picture: Picture, block: Block, labels: Uint8) -> None:
        """Keep (height, width) labels of a block, at all levels up to `COARSEST`."""
        levels = []
        for _ in range(COARSEST + 1):
            levels.append(zlib.compress(labels.tobytes(), _COMPRESSION))
            labels = halve_labels(labels)
        with self._lock:
            self._drop(picture, block)
            self._kept[picture, block] = levels
            self._held += sum(map(len, levels))
            self._put.setdefault(picture, []).append(block)
            while self._held > self._capacity:
                self._drop(*next(iter(self._kept)))

    def missing(self, picture: Picture, blocks: list[Block]) -> list[Block]:
        """Those of ``blocks`` that are not kept."""
        with self._lock:
            return [block for block in blocks if (picture, block) not in self._kept]

    def tile(self, picture: Picture, place: TilePlace, width: int, height: int) -> bytes:
        """Give a tile as PNG of two channels: labels, and 255 where they are known, else 0.

        Its labels are those of the same tile of a mask, whose levels are halved alike.

        Args:
            picture: whose labels.
            place: of the tile, its level at most `COARSEST`.
            width, height: of the slide.

        Raises:
            NoTile: the slide has no such tile.
        """
        x, y, across, down = window(place, width, height, LAYER_TILE)
        pixels = np.zeros((down, across, 2), np.uint8)
        for block, levels in self._within(picture, place):
            left, top, wide, high = block.window(width, height)
            left, top = (left >> place.level) - x, (top >> place.level) - y
            wide, high = -(-wide >> place.level), -(-high >> place.level)
            labels = np.frombuffer(zlib.decompress(levels[place.level]), np.uint8)
            part = pixels[top : top + high, left : left + wide]
            part[..., 0], part[..., 1] = labels.reshape(high, wide), 255
        return bytes(imagecodecs.png_encode(pixels, level=_COMPRESSION))

    def put_since(self, picture: Picture, count: int) -> tuple[int, list[Block]]:
        """How often blocks of a picture were put, and which beyond the first ``count``."""
        with self._lock:
            put = self._put.get(picture, [])
            return len(put), put[count:]

    def _within(self, picture: Picture, place: TilePlace) -> list[tuple[Block, list[bytes]]]:
        """The blocks of a tile that are kept, with their levels."""
        left, top, side = place.column << place.level, place.row << place.level, 1 << place.level
        found = []
        with self._lock:
            for row in range(top, top + side):
                for column in range(left, left + side):
                    key = picture, Block(column, row)
                    if key in self._kept:
                        self._kept.move_to_end(key)
                        found.append((key[1], self._kept[key]))
        return found

    def _drop(self, picture: Picture, block: Block) -> None:
        self._held -= sum(map(len, self._kept.pop((picture, block), [])))
