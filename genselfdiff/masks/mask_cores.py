"""Windows of the cores of objects in a mask, for objects that are taken apart one by one."""

import numpy as np
from numpy.typing import NDArray

from genselfdiff.masks.mask_reader import MaskReader
from genselfdiff.slides.stored import PieceCache

_ROWS_KEPT = 3
"""Rows of tiles: objects come in the order of their last rows, and few are higher than a tile."""

_LEAST, _MOST = 2**20, 2**28
"""Bytes that are kept at least and at most, of 8 pixels each."""


class MaskCores:
    """Where cores are, box by box; see ``instances.Cores``.

    Args:
        mask: a mask that ``has_cores``, open.
    """

    def __init__(self, mask: MaskReader) -> None:
        self._mask = mask
        rows, columns = mask.tile_size
        row_of_tiles = rows * -(-mask.width // columns) * -(-columns // 8)
        self._tiles = PieceCache(min(max(_ROWS_KEPT * row_of_tiles, _LEAST), _MOST), _MOST)

    def __call__(self, left: int, top: int, width: int, height: int) -> NDArray[np.bool_]:
        """(height, width) of a box that lies in the mask.

        Raises:
            InputError: what is stored of it is damaged.
        """
        found = np.empty((height, width), np.bool_)
        rows, columns = self._mask.tile_size
        for row in range(top // rows, -(-(top + height) // rows)):
            for column in range(left // columns, -(-(left + width) // columns)):
                y, x = row * rows, column * columns
                down = slice(max(top, y), min(top + height, y + rows))
                across = slice(max(left, x), min(left + width, x + columns))
                place = slice(down.start - top, down.stop - top)
                found[place, across.start - left : across.stop - left] = self._window(
                    row, column, down, across
                )
        return found

    def _window(self, row: int, column: int, down: slice, across: slice) -> NDArray[np.bool_]:
        """The pixels ``down`` x ``across`` of the mask, which lie in one tile."""
        rows, columns = self._mask.tile_size
        bits = self._tiles.get((row, column), lambda: self._packed(row, column))
        first, last = across.start - column * columns, across.stop - column * columns
        part = bits[down.start - row * rows : down.stop - row * rows, first // 8 : -(-last // 8)]
        begin = first % 8
        return np.unpackbits(part, axis=1)[:, begin : begin + last - first].view(np.bool_)

    def _packed(self, row: int, column: int) -> NDArray[np.uint8]:
        return np.packbits(self._mask.core_tile(row, column), axis=1)
