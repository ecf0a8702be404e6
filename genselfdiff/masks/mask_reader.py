"""Reading a mask back, band by band, with what it says about its classes."""

import os
from collections.abc import Iterator
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from threading import Lock
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from tifffile import TiffFile, TiffPage

from genselfdiff.errors import InputError, one_line
from genselfdiff.masks.ome_description import told_in
from genselfdiff.masks.pyramid_pages import STORED_MPP
from genselfdiff.masks.pyramid_writer import HIDDEN_OFFSETS, HIDDEN_SIZES
from genselfdiff.slides.formats import check_directories, piece_decoder, require_one_mask
from genselfdiff.slides.stored import (
    MAX_PIXELS_AT_ONCE,
    is_absurd,
    palette_of,
    refuse_white_zero,
    require_upright,
)
from genselfdiff.slides.window import check_window
from genselfdiff.storage.opening import open_stored
from genselfdiff.storage.places import Place, place_of
from genselfdiff.text import shown

Uint8 = NDArray[np.uint8]
Colour = tuple[int, int, int]


class MaskReader:
    """An open mask: a TIFF of one 8-bit class index per pixel, as ``MaskWriter`` writes it.

    Use as a context manager. Threads may ``read`` from it at once.

    Args:
        path: the file, or its URL.
        planes: how many bytes a pixel has, each in a plane of its own: 1, or as many as
            ``ProbabilityWriter`` has classes.
        level: of the file's pyramid, 0 being the mask itself; a smaller one tells nothing of
            classes.

    Attributes:
        width, height: of the mask in pixels.
        mpp: micrometres per pixel, or None where the mask does not tell.
        description: what the file tells of itself, empty if that is not in our way.
        class_names, palette: name and (red, green, blue) of each class, as far as the file tells.
        has_cores: the mask tells where the cores of objects are, see ``MaskWriter``.
        tile_size: rows and columns of a tile or strip.
        levels: how many levels the file's pyramid has, each half the size of the one before.

    Raises:
        InputError: the file is missing, damaged or no such TIFF.
    """

    def __init__(self, path: str | Place, planes: int = 1, level: int = 0) -> None:
        self.path = place_of(path)
        self.planes = planes
        self._reading = Lock()
        self._uniform: dict[int, int] = {}
        if isinstance(self.path, Path) and not os.path.exists(self.path):
            raise InputError(f"{path}: no such file")
        self._file = open_stored(self.path)
        try:
            directories = self._file.metadata()
            check_directories(directories)
            self._tiff = TiffFile(directories.stream())
            pages = _pyramid(self._tiff)
            self.levels = len(pages)
            self._page = page = pages[level]
            self.width, self.height = page.imagewidth, page.imagelength
            self._check(page)
            self._decode = piece_decoder(page)
            rows, columns = page.chunks[:2]
            self.tile_size = rows, columns
            self._across, self._down = -(-self.width // columns), -(-self.height // rows)
            self.description = told_in(page.description)
            self.has_cores = planes == 1 and self.description.get("cores") is True
            names, mpp = self.description.get("classes"), self.description.get("mpp")
            self.class_names = (
                [shown(str(name)) for name in names] if isinstance(names, list) else []
            )
            low, high = STORED_MPP
            self.mpp = float(mpp) if isinstance(mpp, int | float) and low <= mpp <= high else None
            colours = [] if page.colormap is None else palette_of(page).tolist()
            self.palette = [(red, green, blue) for red, green, blue in colours]
        except InputError:
            self.close()
            raise
        except Exception as error:  # damaged tags fail in many ways inside tifffile
            self.close()
            raise self._unreadable(error) from error

    def __enter__(self) -> "MaskReader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the file; closing twice is harmless."""
        self._file.close()

    def bands(self) -> Iterator[Uint8]:
        """The class indices from the top, (rows, width) of one row of tiles or strips at a time.

        Raises:
            InputError: the stored pixels are damaged.
        """
        return (stack[0] for stack in self.stacks(0, self.height))

    def stacks(self, first: int, last: int, *, cores: bool = False) -> Iterator[Uint8]:
        """(planes, rows, width) of all rows from ``first`` to ``last``, a row of tiles at a time.

        Args:
            first, last: rows of the mask.
            cores: add a plane that is not 0 in the cores of objects, where ``has_cores``.

        Raises:
            InputError: the stored pixels are damaged.
        """
        height, width = self.tile_size
        for row in range(first // height, -(-last // height)):
            stack = np.zeros((self.planes + cores, height, self._across * width), np.uint8)
            for plane, pixels in enumerate(stack):
                for column in range(self._across):
                    tile = pixels[:, column * width : (column + 1) * width]
                    self._read_tile(plane, row, column, tile)
            top = row * height
            yield stack[:, max(first - top, 0) : min(last, self.height) - top, : self.width]

    def read(
        self, x: int, y: int, width: int, height: int, *, step: int = 1, plane: int = 0
    ) -> Uint8:
        """(height, width) pixels of a plane, every ``step``-th of each row and column.

        Memory follows what is returned: only the tiles under it are decoded, one at a time.

        Args:
            x, y: the first pixel, in pixels of the mask divided by ``step``.
            width, height: how many, in the same.
            step: distance of the pixels taken; each is the middle of the ``step`` x ``step`` that
                it stands for, or the last in its row or column.
            plane: which of the ``planes``.

        Raises:
            InputError: the stored pixels are damaged.
            ValueError: the window is empty or leaves the mask.
        """
        check_window(x, y, width, height, -(-self.width // step), -(-self.height // step))
        rows, columns = (
            np.minimum(np.arange(first, first + count) * step + step // 2, limit - 1)
            for first, count, limit in ((y, height, self.height), (x, width, self.width))
        )
        pixels = np.empty((height, width), np.uint8)
        tile = np.empty(self.tile_size, np.uint8)
        for row, top, bottom in _runs(rows // self.tile_size[0]):
            for column, left, right in _runs(columns // self.tile_size[1]):
                tile[:] = 0
                self._read_tile(plane, row, column, tile)
                inside = rows[top:bottom] - row * self.tile_size[0]
                across = columns[left:right] - column * self.tile_size[1]
                pixels[top:bottom, left:right] = tile[inside[:, None], across]
        return pixels

    def core_tile(self, row: int, column: int) -> Uint8:
        """(rows, columns) of a tile, not 0 in the cores of objects; for masks that ``has_cores``.

        Raises:
            InputError: the stored pixels are damaged.
        """
        tile = np.zeros(self.tile_size, np.uint8)
        self._read_tile(self.planes, row, column, tile)
        return tile

    def name_of(self, label: int) -> str:
        """The name of a class, made up where the mask does not tell."""
        return self.class_names[label] if label < len(self.class_names) else f"class {label}"

    def _read_tile(self, plane: int, row: int, column: int, tile: Uint8) -> None:
        """Decode into ``tile``; that of cores follows the planes."""
        index = row * self._across + column
        is_core = plane == self.planes
        if is_core:
            offset, count = (int(numbers[index]) for numbers in self._core_tiles)
        else:
            index += plane * self._down * self._across
            offset, count = self._page.dataoffsets[index], self._page.databytecounts[index]
        try:
            self._decode_tile(index, offset, count, tile)
        except Exception as error:  # every codec has errors of its own
            which = f"tile {index} of its cores" if is_core else f"tile {index}"
            raise InputError(
                f"{self.path}: {which} is damaged: {one_line(error)}; make the mask again"
            ) from error

    @cached_property
    def _core_tiles(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Offset and bytes of each tile of cores, within the file."""
        size = self._tiff.filehandle.size
        offsets, counts = (self._numbers(tag) for tag in (HIDDEN_OFFSETS, HIDDEN_SIZES))
        if (offsets > size).any() or (counts > size - offsets).any():
            raise self._without_cores("tiles beyond its end")
        return offsets, counts

    def _numbers(self, code: int) -> NDArray[np.uint64]:
        """What a private tag tells of each tile: nobody but us has looked at it."""
        tag, tiles = self._page.tags.get(code), self._down * self._across
        if tag is None or tag.dtype != _LONG8 or tag.count != tiles:
            raise self._without_cores(f"{0 if tag is None else tag.count} of {tiles} tiles")
        file = self._tiff.filehandle
        file.seek(tag.valueoffset)
        data = file.read(8 * tiles)
        if len(data) < 8 * tiles:
            raise self._without_cores("tiles beyond its end")
        return np.frombuffer(data, f"{self._tiff.byteorder}u8").astype(np.uint64)

    def _without_cores(self, found: str) -> InputError:
        return InputError(
            f"{self.path}: the cores of its objects are damaged, or were lost when it was copied"
            f" ({found}): make the mask again, or use --no-instances"
        )

    def _decode_tile(self, index: int, offset: int, count: int, tile: Uint8) -> None:
        """Decode into ``tile``; tiles of one class are stored once, and decoded once."""
        if offset in self._uniform:
            tile[:] = self._uniform[offset]
        elif count and not offset:
            raise ValueError("nothing can be stored at byte 0")
        elif count:
            file = self._tiff.filehandle
            with self._reading:
                file.seek(offset)
                data = file.read(count)
            if len(data) < count:
                raise ValueError("the file ends before it")
            pixels = self._decode(data, index)[:, :, 0]
            tile[: len(pixels)] = pixels
            if count < _UNIFORM_BYTES and (pixels == pixels[0, 0]).all():
                self._uniform[offset] = int(pixels[0, 0])

    def _check(self, page: TiffPage) -> None:
        whole_bytes = page.dtype == np.uint8 and page.bitspersample == 8
        separate = self.planes == 1 or page.planarconfig == 2
        if not whole_bytes or page.samplesperpixel != self.planes or not separate:
            raise InputError(f"{self.path}: is no mask of class indices: 8 bits a pixel are needed")
        if not self.width or not self.height:
            raise InputError(f"{self.path}: is {self.width} x {self.height} pixels: is it whole?")
        refuse_white_zero(page)
        require_upright(self.path, page)
        require_one_mask(self._tiff, self.path)
        rows, columns = page.chunks[:2]
        stored = self._file.size
        if rows * columns > MAX_PIXELS_AT_ONCE or is_absurd(columns, rows, stored):
            raise InputError(f"{self.path}: is stored in too large pieces; convert it to tiles")
        pieces = -(-self.height // rows) * -(-self.width // columns) * self.planes
        if min(len(page.dataoffsets), len(page.databytecounts)) < pieces:
            raise InputError(f"{self.path}: lists fewer than its {pieces} tiles; is it whole?")

    def _unreadable(self, error: Exception) -> InputError:
        return InputError(f"{self.path}: is no readable mask ({one_line(error)})")


def _pyramid(tiff: TiffFile) -> list[TiffPage]:
    """The first page, and those that follow it or are its SubIFDs and halve it again and again."""
    first = tiff.pages[0]
    if not isinstance(first, TiffPage):
        raise ValueError("its first page is incomplete")
    pages = [first]
    for page in chain(first.pages or (), islice(tiff.pages, 1, None)):
        half = (-(-pages[-1].imagewidth // 2), -(-pages[-1].imagelength // 2))
        if not isinstance(page, TiffPage) or (page.imagewidth, page.imagelength) != half:
            break
        pages.append(page)
    return pages


def _runs(numbers: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """Each number of an ascending row of them, with the places where it begins and ends."""
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    ends = np.append(starts[1:], len(numbers))
    yield from zip(numbers[starts].tolist(), starts.tolist(), ends.tolist(), strict=True)


_LONG8 = 16
"""The type of BigTIFF's offsets."""

_UNIFORM_BYTES = 4096
"""Tiles of one class take less; others need not be compared."""
