"""Decoding the tiles and strips of one page of a TIFF file."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genselfdiff.errors import InputError
from genselfdiff.slides.formats.missing_tiles import TileMap
from genselfdiff.slides.formats.tiff_codecs import piece_decoder, piece_size
from genselfdiff.slides.formats.tiff_pages import LevelPage
from genselfdiff.slides.stored.damage import Damage, Unreadable
from genselfdiff.slides.stored.pixel_format import PixelFormat, convert_planes
from genselfdiff.slides.stored.stored_image import (
    MAX_PIXELS_AT_ONCE,
    Piece,
    StoredLevel,
    is_absurd,
)
from genselfdiff.storage.stored_file import Range, StoredFile

Uint8 = NDArray[np.uint8]

_UNCOMPRESSED = 1
_BAND_BYTES = 2**20
"""Uncompressed strips are read in bands of about this size: some programs write one huge strip."""


def tiff_level(
    level: LevelPage,
    index: int,
    file: StoredFile,
    damage: Damage,
    pixels: PixelFormat,
    finer: "TiffLevel | None",
) -> "TiffLevel":
    """Make level ``index`` of a page that reads from ``file``, which stays the caller's.

    What is stored becomes RGB as ``pixels`` says; what is not, but in the ``finer`` level, is made
    of that. Where damage is tolerated, so are pieces beyond the end of the file until they are
    read.

    All that is needed is taken from the page now: its TiffFile may be closed afterwards.

    Raises:
        InputError: the file is truncated, or stored in pieces too large to decode at once.
        ValueError: the page is no plane of pixels, or its tags are damaged.
    """
    page = level.page
    if page.imagewidth < 1 or page.imagelength < 1:
        raise ValueError(f"it is {page.imagewidth} x {page.imagelength} pixels")
    if page.imagedepth != 1 or (page.is_tiled and page.tiledepth != 1):
        raise ValueError("it is a volume, not a plane")
    raw = (
        not page.is_tiled
        and page.compression == _UNCOMPRESSED
        and page.bitspersample in (8, 16)
        and page.planarconfig == 1
        and page.predictor == 1
        and page.fillorder == 1
        and not page.is_subsampled
        and 0 not in page.dataoffsets  # where a strip is not stored
    )
    if raw:
        return _RawStrips(level, index, file, damage, pixels)
    return _Segments(level, index, file, damage, pixels, finer)


class TiffLevel(StoredLevel):
    """What both kinds share.

    Bytes are read without a file position, which threads and forked processes would share.

    Attributes:
        tiles: which pieces are stored.
        file: where they are.
    """

    tiles: TileMap

    def __init__(
        self,
        level: LevelPage,
        index: int,
        file: StoredFile,
        damage: Damage,
        pixels: PixelFormat,
        piece: tuple[int, int],
    ) -> None:
        page = level.page
        super().__init__(level.width, level.height, *piece, damage)
        self._index = index
        self._is_tiled = page.is_tiled
        self.file = file
        self._file_size = file.size
        self._pixels = pixels
        self._offsets = np.asarray(page.dataoffsets, np.int64)
        self._counts = np.asarray(page.databytecounts, np.int64)

    def _check_listed(self, expected: int) -> None:
        listed = min(len(self._offsets), len(self._counts))
        if listed != expected or len(self._offsets) != len(self._counts):
            raise ValueError(f"it lists {listed} stored pieces where {expected} are needed")
        if (self._offsets < 0).any() or (self._counts < 0).any():
            raise ValueError("its list of stored pieces is damaged")
        missing = int((self._offsets > self._file_size - self._counts).sum())
        if missing == expected or (missing and not self.damage.is_tolerated):
            raise InputError(
                f"{self.file.place}: is truncated: {missing} of {expected} stored pieces lie beyond"
                " its end; copy or download it again, or take what is missing for glass with"
                " --on-error blank"
            )

    def expect(self, pieces: Iterable[Piece]) -> None:
        """Have the file fetch them ahead."""
        self.file.expect(part for piece in pieces for part in self.ranges(*piece))

    def want(self, pieces: Iterable[Piece]) -> None:
        """Have the file fetch them, neighbours together."""
        self.file.want(part for piece in pieces for part in self.ranges(*piece))

    @abstractmethod
    def ranges(self, column: int, row: int) -> Iterator[Range]:
        """Which bytes of the file decoding a piece reads."""

    def _read_at(self, offset: int, count: int) -> bytes:
        data = self.file.read_at(offset, count)
        if len(data) != count:
            raise ValueError("the file ends early")
        return data

    def _unreadable(self, column: int, row: int, offset: int, error: Exception) -> Unreadable:
        kind = "tile" if self._is_tiled else "strip"
        place = self.file.place
        name = f" of {place.name}" if place != self.damage.path else ""
        where = (
            f"{kind} (column {column}, row {row}) of level {self._index}, at byte {offset}{name},"
        )
        return Unreadable(where, error)


class _Segments(TiffLevel):
    """Tiles, or compressed strips: decoded one at a time."""

    def __init__(
        self,
        level: LevelPage,
        index: int,
        file: StoredFile,
        damage: Damage,
        pixels: PixelFormat,
        finer: TiffLevel | None,
    ) -> None:
        page = level.page
        columns, rows = piece_size(page)
        if rows < 1 or columns < 1:
            raise ValueError(f"its tiles or strips are {columns} x {rows} pixels")
        rgb_pixels = rows * columns * max(page.samplesperpixel * page.bitspersample / 24, 1)
        if rgb_pixels > MAX_PIXELS_AT_ONCE:
            raise InputError(
                f"{damage.path}: is stored in pieces of {columns} x {rows} pixels, too large to"
                " decode in bounded memory; convert it to a tiled TIFF"
            )
        super().__init__(level, index, file, damage, pixels, (columns, rows))
        self._across = -(-page.imagewidth // columns)
        self._per_plane = self._across * -(-page.imagelength // rows)
        self._planes = page.samplesperpixel if page.planarconfig == 2 else 1
        self._check_listed(self._per_plane * self._planes)
        if page.dtype is None:
            raise ValueError(f"its samples are of {page.bitspersample} bits")
        self._item_bytes = page.dtype.itemsize
        self._decode = piece_decoder(page)
        grid = self._planes, -1, self._across
        self._stored = (self._counts > 0).reshape(grid).max(axis=0)
        present = self._stored & (self._offsets > 0).reshape(grid).max(axis=0)
        self.tiles = TileMap(self, present, None if finer is None else finer.tiles)
        self._first = self._find_shared()

    def _find_shared(self) -> NDArray[np.intp] | None:
        """Return for each piece the first with its bytes; None if the file has room for all."""
        if self._planes > 1 or int(self._counts.sum()) <= self._file_size:
            return None
        pieces = np.arange(self._per_plane)
        row, column = np.divmod(pieces, self._across)
        # One at the edge may end there.
        is_whole = (column + 1) * self.piece_width <= self.width
        is_whole &= (row + 1) * self.piece_height <= self.height
        whole, first = np.flatnonzero(is_whole), pieces.copy()
        _, at, inverse = np.unique(self._offsets[whole], return_index=True, return_inverse=True)
        first[whole] = whole[at][inverse]
        return np.where(self._counts == self._counts[first], first, pieces)

    def shared_with(self, column: int, row: int) -> tuple[int, int]:
        if self._first is None:
            return column, row
        first_row, first_column = divmod(
            int(self._first[row * self._across + column]), self._across
        )
        if self.tiles.is_rebuilt(column, row) or self.tiles.is_rebuilt(first_column, first_row):
            return column, row
        return first_column, first_row

    def decode(self, column: int, row: int) -> Uint8:
        if self.tiles.is_rebuilt(column, row):
            return self.tiles.rebuild(column, row)
        if not self._stored[row, column]:
            return np.broadcast_to(self._pixels.empty, (self.piece_height, self.piece_width, 3))
        index = first = row * self._across + column
        try:
            planes = []
            for index in range(first, len(self._counts), self._per_plane):
                planes.append(self._decode_segment(index))
                self._check_covers(column, row, planes[-1])
            return convert_planes(self._pixels.convert, planes)
        except (MemoryError, InputError):  # of the whole file, not of this piece
            raise
        except Exception as error:  # every codec has errors of its own
            raise self._unreadable(column, row, int(self._offsets[index]), error) from error

    def ranges(self, column: int, row: int) -> Iterator[Range]:
        if self._stored[row, column] and not self.tiles.is_rebuilt(column, row):
            first = row * self._across + column
            for index in range(first, len(self._counts), self._per_plane):
                yield int(self._offsets[index]), int(self._counts[index])

    def _decode_segment(self, index: int) -> NDArray[Any]:
        offset, count = int(self._offsets[index]), int(self._counts[index])
        if offset == 0 or count == 0:
            raise ValueError("not all of it is stored")
        if is_absurd(self.piece_width, self.piece_height, count):
            raise ValueError(f"{count} bytes cannot hold that many pixels")
        pixels = self._decode(self._read_at(offset, count), index)
        if pixels.dtype.itemsize != self._item_bytes:
            raise ValueError(f"its samples are of {pixels.dtype}")
        return pixels

    def _check_covers(self, column: int, row: int, pixels: NDArray[Any]) -> None:
        height = min(self.piece_height, self.height - row * self.piece_height)
        width = min(self.piece_width, self.width - column * self.piece_width)
        if pixels.shape[0] < height or pixels.shape[1] < width:
            raise ValueError(f"it is {pixels.shape[1]} x {pixels.shape[0]} pixels")


class _RawStrips(TiffLevel):
    """Uncompressed strips: any rows can be read by themselves."""

    def __init__(
        self,
        level: LevelPage,
        index: int,
        file: StoredFile,
        damage: Damage,
        pixels: PixelFormat,
    ) -> None:
        page = level.page
        order = page.parent.byteorder
        self._dtype = np.dtype(np.uint8 if page.bitspersample == 8 else f"{order}u2")
        self._samples = page.samplesperpixel
        self._row_bytes = page.imagewidth * self._samples * self._dtype.itemsize
        self._strip_rows = min(page.rowsperstrip, page.imagelength)
        if self._strip_rows < 1:
            raise ValueError("its strips have no rows")
        rows = min(max(1, _BAND_BYTES // self._row_bytes), page.imagelength)
        super().__init__(level, index, file, damage, pixels, (page.imagewidth, rows))
        strips = -(-self.height // self._strip_rows)
        needed = np.full(len(self._counts), self._strip_rows * self._row_bytes)
        needed[-1:] = (self.height - (strips - 1) * self._strip_rows) * self._row_bytes
        self._counts = needed  # some writers count more, or the last strip as full
        self._check_listed(strips)
        self.tiles = TileMap(self, np.ones((-(-self.height // rows), 1), np.bool_))

    def decode(self, column: int, row: int) -> Uint8:
        first, last = self._rows_of(row)
        strips = enumerate(self.ranges(column, row), first // self._strip_rows)
        parts = [self._read_part(strip, part) for strip, part in strips]
        stored = np.frombuffer(b"".join(parts), self._dtype)
        try:
            return convert_planes(
                self._pixels.convert, [stored.reshape(last - first, self.width, self._samples)]
            )
        except ValueError as error:
            strip = first // self._strip_rows
            raise self._unreadable(0, strip, int(self._offsets[strip]), error) from error

    def _rows_of(self, row: int) -> tuple[int, int]:
        """The first row of a piece, and the one behind its last."""
        first = row * self.piece_height
        return first, min(first + self.piece_height, self.height)

    def ranges(self, column: int, row: int) -> Iterator[Range]:
        first, last = self._rows_of(row)
        for strip in range(first // self._strip_rows, (last - 1) // self._strip_rows + 1):
            top = strip * self._strip_rows
            start = max(first, top)
            rows = min(last, top + self._strip_rows) - start
            offset = int(self._offsets[strip]) + (start - top) * self._row_bytes
            yield offset, rows * self._row_bytes

    def _read_part(self, strip: int, part: Range) -> bytes:
        try:
            return self._read_at(*part)
        except InputError:
            raise
        except (OSError, ValueError) as error:
            raise self._unreadable(0, strip, part[0], error) from error
