"""Images that are stored turned or mirrored: the Orientation that TIFF and EXIF know.

Viewers and annotation programs show such images upright, so that is how we read them.
"""

import logging
import os
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from tifffile import TiffPage

from genselfdiff.errors import InputError
from genselfdiff.slides.stored.notes import tell_once
from genselfdiff.slides.stored.stored_image import StoredLevel
from genselfdiff.storage.places import Place

Uint8 = NDArray[np.uint8]

UPRIGHT = 1
_TAG = 274
_IS_TRANSPOSED = frozenset({5, 6, 7, 8})
_STARTS_RIGHT = frozenset({2, 3, 6, 7})
_STARTS_BELOW = frozenset({3, 4, 7, 8})
"""Orientations in which stored rows and columns are exchanged, and, that undone, which begin at
the right and which at the bottom."""

_MOST_CHUNKS, _MOST_EXIF_BYTES = 2**20, 2**20


def page_orientation(page: TiffPage) -> int:
    """How the pixels of a page are stored, 1 to 8; what is not told or no such number is 1."""
    tag = page.tags.get(_TAG)
    return _known(tag.value if tag is not None else UPRIGHT)


def require_upright(path: Place, page: TiffPage) -> None:
    """Raise InputError, naming the file, where a mask that is read in bands is not upright."""
    if page_orientation(page) != UPRIGHT:
        raise InputError(f"{path}: is stored turned or mirrored; save it upright")


def picture_orientation(image: Image.Image) -> int:
    """How the pixels of a PNG or JPEG are stored, 1 to 8; damaged EXIF tells nothing.

    The pixels are not decoded for it.
    """
    try:
        # Not PngImageFile.getexif, which decodes the pixels to look for EXIF behind them.
        exif = Image.Image.getexif(image)
        if isinstance(image, PngImageFile) and _TAG not in exif:
            exif = Image.Exif()
            exif.load(_png_exif(image))
        return _known(exif.get(_TAG, UPRIGHT))
    except Exception:  # Pillow fails in many ways in damaged EXIF
        return UPRIGHT


def turned_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Width and height, upright, of an image that is stored in ``size``, or the other way round."""
    return size[::-1] if orientation in _IS_TRANSPOSED else size


def turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn stored pixels, (h, w, ...), upright; returns a view of them."""
    if orientation in _IS_TRANSPOSED:
        pixels = pixels.swapaxes(0, 1)
    if orientation in _STARTS_RIGHT:
        pixels = pixels[:, ::-1]
    return pixels[::-1] if orientation in _STARTS_BELOW else pixels


def upright(levels: Sequence[StoredLevel], orientation: int) -> tuple[StoredLevel, ...]:
    """Show the levels of an image that is stored with that orientation; it is told, if not 1."""
    if orientation == UPRIGHT:
        return tuple(levels)
    tell_once(
        logging.INFO,
        f"{levels[0].damage.path}: is stored turned or mirrored (orientation {orientation}) and"
        " read upright, as viewers show it",
    )
    return tuple(_TurnedLevel(level, orientation) for level in levels)


class _TurnedLevel(StoredLevel):
    """A level seen upright.

    Args:
        stored: the level as it is stored.
        orientation: how that is.
    """

    def __init__(self, stored: StoredLevel, orientation: int) -> None:
        width, height = turned_size((stored.width, stored.height), orientation)
        piece = turned_size((stored.piece_width, stored.piece_height), orientation)
        super().__init__(width, height, *piece, stored.damage)
        self._stored = stored
        self._orientation = orientation

    def decode(self, column: int, row: int) -> Uint8:
        x, y = column * self.piece_width, row * self.piece_height
        width, height = (
            min(self.piece_width, self.width - x),
            min(self.piece_height, self.height - y),
        )
        if self._orientation in _STARTS_RIGHT:
            x = self.width - x - width
        if self._orientation in _STARTS_BELOW:
            y = self.height - y - height
        corner = turned_size((x, y), self._orientation)
        size = turned_size((width, height), self._orientation)
        return np.ascontiguousarray(turned(self._stored.read(*corner, *size), self._orientation))

    def forget(self) -> None:
        super().forget()
        self._stored.forget()


def _known(value: object) -> int:
    return value if isinstance(value, int) and 1 <= value <= 8 else UPRIGHT


def _png_exif(image: PngImageFile) -> bytes:
    """The chunk with EXIF of a PNG, wherever in the file; without one, nothing."""
    with open(image.filename, "rb") as file:
        file.seek(8)
        for _ in range(_MOST_CHUNKS):
            header = file.read(8)
            if len(header) < 8:
                break
            size, name = struct.unpack(">I4s", header)
            if name == b"eXIf":
                return file.read(min(size, _MOST_EXIF_BYTES))
            file.seek(size + 4, os.SEEK_CUR)
    return b""
