"""What a file format gives the reader: levels cut into pieces that are decoded one at a time."""

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from genselfdiff.errors import InputError
from genselfdiff.slides.stored.damage import Damage, Unreadable
from genselfdiff.slides.stored.piece_cache import PieceCache

Uint8 = NDArray[np.uint8]

Piece = tuple[int, int]
"""Column and row of a piece of a level."""

Box = tuple[int, int, int, int]
"""x, y, width and height of a window in pixels of a level, in which it lies."""

MAX_PIXELS_AT_ONCE = 2**28
"""Pixels that are decoded in one go at most: 805 MB as RGB."""

_PIXELS_PER_BYTE = 2**15
"""That a byte in a file can stand for, in a format about which nothing else is known."""

_HARMLESS_PIXELS = 2**26
"""Decoded without asking: a blank tile of JPEG 2000 or WebP takes a handful of bytes."""

_SIZE_TOLERANCE = 2
"""Pixels by which a level's size may differ from the slide's over its downsampling."""

_CACHE = PieceCache(64 * 2**20, 2**30)
"""Shared by all open slides, so that many open slides need no more memory than one.

Without a reservation it need only serve windows near each other.
"""

# A thread of the parent may hold the cache's locks at the fork; in the child nobody frees them.
os.register_at_fork(after_in_child=_CACHE.reset)


def is_absurd(
    width: int, height: int, stored_bytes: int, per_byte: float = _PIXELS_PER_BYTE
) -> bool:
    """Tell whether so few bytes cannot hold so many pixels; no decoder need try and allocate.

    Args:
        width, height: in pixels.
        stored_bytes: what they are stored in.
        per_byte: pixels that a byte can stand for.
    """
    pixels = width * height
    return pixels > _HARMLESS_PIXELS and pixels > stored_bytes * per_byte


def is_reduction(main: tuple[int, int], size: tuple[int, int]) -> bool:
    """Tell whether a level of ``size`` (width, height) can be ``main`` made smaller."""
    if not (0 < size[0] < main[0] and 0 < size[1] < main[1]):
        return False
    downsample = math.sqrt((main[0] / size[0]) * (main[1] / size[1]))
    return all(abs(main[i] / downsample - size[i]) <= _SIZE_TOLERANCE for i in (0, 1))


class StoredLevel(ABC):
    """One resolution level, stored as a grid of pieces of equal size.

    Attributes:
        width, height: size in pixels.
        piece_width, piece_height: size in pixels of the tiles, strips or picture it is stored in.
        damage: what becomes of pieces that cannot be decoded.
    """

    def __init__(
        self, width: int, height: int, piece_width: int, piece_height: int, damage: Damage
    ) -> None:
        self.width = width
        self.height = height
        self.piece_width = piece_width
        self.piece_height = piece_height
        self.damage = damage

    @abstractmethod
    def decode(self, column: int, row: int) -> Uint8:
        """Return a piece as (h, w, 3) RGB; beyond the level's edge it may be short or go on.

        Raises:
            Unreadable: this piece is damaged.
            InputError: nothing of the file can be read.
        """

    def shared_with(self, column: int, row: int) -> tuple[int, int]:
        """Return column and row of the piece whose bytes this one has: its own, or another's.

        What is stored once is decoded and held once, however often a level shows it.
        """
        return column, row

    def expect(self, pieces: Iterable[Piece]) -> None:  # noqa: B027  # a disk needs no word of it
        """Say which pieces will be decoded next, in this order."""

    def want(self, pieces: Iterable[Piece]) -> None:  # noqa: B027
        """Say which pieces will be decoded now."""

    def expect_windows(self, windows: Iterable[Box]) -> None:
        """Say which windows will be read next, in this order."""
        self.expect(piece for window in windows for piece in self._missing(*window))

    def _missing(self, x: int, y: int, width: int, height: int) -> Iterator[Piece]:
        """The pieces that reading a window has to decode."""
        for row in range(y // self.piece_height, -(-(y + height) // self.piece_height)):
            for column in range(x // self.piece_width, -(-(x + width) // self.piece_width)):
                place = self.shared_with(column, row)
                if not _CACHE.holds((self, *place)):
                    yield place

    def read(self, x: int, y: int, width: int, height: int) -> Uint8:
        """Return a window, which must lie inside the level, as (height, width, 3) RGB."""
        self.want(self._missing(x, y, width, height))
        window = np.empty((height, width, 3), np.uint8)
        for row in range(y // self.piece_height, -(-(y + height) // self.piece_height)):
            top = row * self.piece_height
            for column in range(x // self.piece_width, -(-(x + width) // self.piece_width)):
                left = column * self.piece_width
                place = self.shared_with(column, row)
                piece = _CACHE.get((self, *place), partial(self._decoded, *place))
                y0, y1 = max(y, top), min(y + height, top + self.piece_height)
                x0, x1 = max(x, left), min(x + width, left + self.piece_width)
                window[y0 - y : y1 - y, x0 - x : x1 - x] = piece[
                    y0 - top : y1 - top, x0 - left : x1 - left
                ]
        return window

    def hold_rows(self, width: int, height: int) -> None:
        """Keep decoded what windows ``height`` pixels high and wide touch in rows ``width`` wide.

        Windows of the row below that overlap them then find there what both need.
        """
        rows = -(-(height - 1) // self.piece_height) + 1
        columns = -(-(width - 1) // self.piece_width) + 1
        # The row above counts to the right of a window, its own row to the left.
        columns += 2 * (-(-(height - 1) // self.piece_width) + 1)
        rows = min(rows, -(-self.height // self.piece_height))
        columns = min(columns, -(-self.width // self.piece_width))
        _CACHE.reserve(self, 3 * rows * self.piece_height * columns * self.piece_width)

    def forget_above(self, y: int) -> None:
        """Drop from memory the pieces that lie above row ``y``."""
        _CACHE.drop(
            lambda key: (
                isinstance(key, tuple) and key[0] is self and (key[2] + 1) * self.piece_height <= y
            )
        )

    def forget(self) -> None:
        """Drop all that is held of this level from memory."""
        _CACHE.reserve(self, 0)
        _CACHE.drop(lambda key: isinstance(key, tuple) and key[0] is self)

    def _decoded(self, column: int, row: int) -> Uint8:
        try:
            return self.decode(column, row)
        except Unreadable as error:
            shape = (self.piece_height, self.piece_width)
            return self.damage.replace(shape, error)
        except MemoryError as error:
            raise InputError(
                f"{self.damage.path}: there is too little memory for a piece of"
                f" {self.piece_width} x {self.piece_height} pixels, as which it is stored; convert"
                " it to a tiled TIFF"
            ) from error


@dataclass(frozen=True)
class StoredImage:
    """An opened file.

    Attributes:
        levels: from the largest to the smallest, at least one.
        mpp: micrometres per pixel of the largest level, where the file tells.
        doubt: where ``mpp`` is None, what the file tells that cannot be believed; else "".
        icc: its ICC profile, empty without.
        close: releases the file.
        ahead_bytes: of the file as it is stored, that are held in memory at most.
    """

    levels: tuple[StoredLevel, ...]
    mpp: float | None
    doubt: str
    icc: bytes
    close: Callable[[], None]
    ahead_bytes: int = 0

    def memory_bound(self) -> int:
        """Bytes that reading holds at most, 16 bits and alpha of a piece included."""
        largest = max(level.piece_width * level.piece_height for level in self.levels)
        return _CACHE.capacity + (3 + 2 * 4) * largest + self.ahead_bytes

    def forget_pieces(self) -> None:
        """Drop the decoded pieces of this image from memory."""
        for level in self.levels:
            level.forget()
