"""Writing planes of any height as a pyramidal BigTIFF, row by row, over several runs."""

import os
import time
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import imagecodecs
import numpy as np

from genselfdiff.errors import OutputError
from genselfdiff.masks.bigtiff import BigTiffFile, Tag, array_tag, number_tag, ratio_tag, text_tag
from genselfdiff.masks.ome_description import is_ome
from genselfdiff.masks.pyramid_pages import Pixels, PyramidShape, lay_out_pyramid
from genselfdiff.resumable_file import ResumableFile

RECORD_SECONDS = 5.0
"""A killed run loses no more than what was written in this time."""

SOFTWARE = "genselfdiff"
"""The Software tag, by which our files are known."""

_ROWS_AT_ONCE = 16
"""Rows that are halved and counted at once: few enough to stay in the processor's cache."""

_WAITING_TILES = 16
"""Compressed or being compressed, until the ones before them are written."""

_DEFLATE_LEVEL = 4
"""Of libdeflate: on masks smaller than zlib's 4, in 40 % of the time."""

_DEFLATE, _CENTIMETRE, _NO_UNIT, _REDUCED = 8, 3, 1, 1

HIDDEN_OFFSETS, HIDDEN_SIZES = 65230, 65231
"""Private tags of the first page: where the tiles of the hidden planes lie, and their bytes."""


class PyramidWriter:
    """Writes planes of whole numbers as a tiled, deflate-compressed BigTIFF with its pyramid.

    The pyramid is a chain of pages, each half the size of the one before until one tile holds it;
    in an OME-TIFF, which the suffix ``.ome.tif`` asks for, the smaller are SubIFDs of the first.
    All pages are built while rows come in; two rows of tiles are held in memory, never the image.
    Tiles are compressed in threads and stored in the order in which they are filled, so that the
    file does not depend on how the rows are cut, nor on how often the run was interrupted.

    Use as a context manager. The file appears under its name when the block ends well; what was
    there before is untouched until then.

    Args:
        file: where to write; if a ``ResumableFile`` has a purpose, a later run goes on where a
            killed one was.
        shape: of each plane.
        planes: how many there are.
        hidden: how many more follow them that no other program is shown: they have no pyramid, and
            only `HIDDEN_OFFSETS` and `HIDDEN_SIZES` tell where they are.

    Attributes:
        dtype: of a pixel in each plane, an unsigned one; the same for all files of a class.
        rows_written: rows of the window that need not be written any more; after ``__enter__``
            those of earlier runs.
        counts: pixels of each value in the window, of all planes but the hidden, as far as their
            tiles are stored.
        from_damaged: whether something of what was pushed stands in for data that was damaged; set
            by whoever pushes, and known to later runs.

    Raises:
        OutputError: the folder is missing or not writable, the disk is full, or as
            ``ResumableFile``.
        ValueError: the block ended before all rows were written.
    """

    dtype: np.dtype[Any] = np.dtype(np.uint8)

    def __init__(
        self,
        file: str | Path | ResumableFile,
        shape: PyramidShape,
        *,
        planes: int,
        hidden: int = 0,
    ) -> None:
        self._file = file if isinstance(file, ResumableFile) else ResumableFile(file)
        self.path = self._file.target
        self.width, self.height, self.mpp = shape.width, shape.height, shape.mpp
        self.planes = planes
        self.rows_written = 0
        self.counts: Counter[int] = Counter()
        self.from_damaged = False
        _, self._top, self._width, self._height = shape.written
        self._tile = shape.tile
        self._pushed = planes + hidden
        self._pages = lay_out_pyramid(shape, planes, hidden, self.dtype)
        self._uniform: dict[int, tuple[int, int]] = {}
        self._pending: deque[_Pending] = deque()
        self._filled: list[tuple[int, int]] = []
        self._stack = ExitStack()
        self._tiff: BigTiffFile
        self._recorded_at = 0.0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._file)
            threads = min(4, os.cpu_count() or 1)
            self._pool = stack.enter_context(ThreadPoolExecutor(threads, "gsd-encoder"))
            records = self._file.records
            self._tiff = BigTiffFile(self._file.stream, records[-1]["end"] if records else 0)
            if records:
                self._restore(records)
                records.clear()  # of a wide slide with many classes they are a gigabyte
            self._recorded_at = time.monotonic()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._stack:  # passed through it, a full disk is named
            if error is None:
                self._finish()
                return
            raise error

    def halve(self, rows: Pixels) -> Pixels:
        """(planes, h, w) at half the size, rounded up."""
        raise NotImplementedError

    def count(self, rows: Pixels) -> None:
        """Add (planes, n, width) rows of the window that are being stored to ``counts``."""

    def page_tags(self, level: int) -> list[Tag]:
        """Tags of a page beside those of its size, tiles and resolution."""
        raise NotImplementedError

    def push(self, rows: Pixels) -> None:
        """Take the next (planes, n, width) of the window, the hidden last, beginning at its top.

        Raises:
            ValueError: wrong shape or type, or more rows than the window has.
        """
        if rows.shape[::2] != (self._pushed, self._width) or rows.dtype != self.dtype:
            raise ValueError(
                f"{self.path}: rows of shape {rows.shape} and type {rows.dtype} do not fit"
                f" {self._pushed} planes of {self.dtype} {self._width} pixels wide"
            )
        if self.rows_written + rows.shape[1] > self._height:
            raise ValueError(f"{self.path}: more rows than the {self._height} of the mask")
        self.rows_written += rows.shape[1]
        self._push(0, rows)

    def _push(self, level: int, rows: Pixels) -> None:
        page = self._pages[level]
        while rows.shape[1]:
            taken = rows[:, : self._tile - page.filled]
            columns = slice(page.indent, page.indent + taken.shape[2])
            page.band[:, page.filled : page.filled + taken.shape[1], columns] = taken
            page.filled += taken.shape[1]
            rows = rows[:, taken.shape[1] :]
            if page.filled == self._tile:
                self._store_band(level)
                if level == 0 and time.monotonic() - self._recorded_at >= RECORD_SECONDS:
                    self._record()

    def _store_band(self, level: int) -> None:
        page = self._pages[level]
        band = page.band[:, : page.filled]
        if level == 0:
            first = self._top - page.next_row * self._tile
            wanted = band[: self.planes, max(first, 0) : first + self._height]
            for y in range(0, wanted.shape[1], _ROWS_AT_ONCE):
                columns = slice(page.indent, page.indent + self._width)
                self.count(wanted[:, y : y + _ROWS_AT_ONCE, columns])
        for plane, pixels in enumerate(band):
            for x in range(0, band.shape[2], self._tile):
                place = (level, plane, page.next_row, page.first_column + x // self._tile)
                self._store_tile(place, pixels[:, x : x + self._tile])
        self._filled.append((level, page.next_row))
        page.next_row += 1
        page.filled = 0
        if level + 1 < len(self._pages):
            self._push_halves(level + 1, band)

    def _push_halves(self, level: int, band: Pixels) -> None:
        for y in range(0, band.shape[1], _ROWS_AT_ONCE):
            self._push(level, self.halve(band[: self.planes, y : y + _ROWS_AT_ONCE]))

    def _store_tile(self, place: "_Place", pixels: Pixels) -> None:
        """Compress a tile, cut off at the image's edge; see ``_write_next``."""
        first = int(pixels[0, 0])
        if (pixels == first).all():
            self._pending.append(_Pending(place, uniform=first))
        else:
            tile = np.zeros((self._tile, self._tile), self.dtype)
            tile[: pixels.shape[0], : pixels.shape[1]] = pixels
            self._pending.append(_Pending(place, encoded=self._pool.submit(compress, tile)))
        while len(self._pending) > _WAITING_TILES:
            self._write_next()

    def _write_next(self) -> None:
        level, plane, row, column = (pending := self._pending.popleft()).place
        if pending.encoded is None:
            where = self._shared(pending.uniform)
        else:
            where = self._append(pending.encoded.result())
        self._pages[level].tiles[plane, row, column] = where

    def _shared(self, value: int) -> tuple[int, int]:
        """The place of a tile of one value only.

        Most of a slide is one class: such tiles are stored once. Tiles without data would be
        smaller still, but Pillow and others that use libtiff refuse them.
        """
        if value not in self._uniform:
            self._uniform[value] = self._append(
                compress(np.full(2 * (self._tile,), value, self.dtype))
            )
        return self._uniform[value]

    def _append(self, data: bytes) -> tuple[int, int]:
        return self._tiff.add_data(data), len(data)

    def _write_all(self) -> None:
        while self._pending:
            self._write_next()

    def _record(self) -> None:
        """Note what is stored, for a run that goes on after this one was killed."""
        self._write_all()
        if not self._filled:
            return
        bands = [
            (level, row, self._pages[level].stored(row).tolist()) for level, row in self._filled
        ]
        uniform = [(value, *where) for value, where in self._uniform.items()]
        self._file.record(
            {
                "bands": bands,
                "uniform": uniform,
                "counts": list(self.counts.items()),
                "from_damaged": self.from_damaged,
            }
        )
        self._filled.clear()
        self._recorded_at = time.monotonic()

    def _restore(self, records: list[dict[str, Any]]) -> None:
        try:
            self._take_up(records)
        except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, MemoryError):
            raise OutputError(
                f"{self.path}: what a run that was stopped has left of it is damaged: delete"
                f" {self._file.partial} to start anew"
            ) from None

    def _take_up(self, records: list[dict[str, Any]]) -> None:
        """Take up the state of the last record: its tables, and the bands that are half full."""
        for entry in records:
            for level, row, stored in entry["bands"]:
                page = self._pages[level]
                page.stored(row)[:] = stored
                page.next_row, page.filled = row + 1, 0
        self._uniform = {value: (offset, size) for value, offset, size in records[-1]["uniform"]}
        self.counts = Counter(dict(records[-1]["counts"]))
        self.from_damaged = bool(records[-1]["from_damaged"])
        self.rows_written = self._pages[0].next_row * self._tile - self._top
        for level, above in enumerate(self._pages[:-1]):
            # A band makes half a band of the next page: of an even row, one that is not stored yet.
            if above.next_row % 2 and above.next_row > above.first_row:
                self._push_halves(level + 1, self._read_band(level, above.next_row - 1))

    def _read_band(self, level: int, row: int) -> Pixels:
        page = self._pages[level]
        columns = page.stored(row)
        band = np.zeros((len(columns), self._tile, columns.shape[1] * self._tile), self.dtype)
        for plane, tiles in enumerate(columns):
            for i, (offset, size) in enumerate(tiles):
                data = os.pread(self._file.stream.fileno(), int(size), int(offset))
                tile = np.frombuffer(imagecodecs.deflate_decode(data, raw=False), self.dtype)
                x = i * self._tile
                band[plane, :, x : x + self._tile] = tile.reshape(self._tile, self._tile)
        return band[:, :, : page.band.shape[2]]

    def _finish(self) -> None:
        if self.rows_written != self._height:
            raise ValueError(f"{self.path}: {self.rows_written} of {self._height} rows written")
        for level, page in enumerate(self._pages):
            if page.filled:
                # Below the window the image goes on, unless it ends there as well.
                below = min(self._tile, page.height - page.next_row * self._tile)
                page.band[:, page.filled : below] = 0
                page.filled = below
                self._store_band(level)
        self._write_all()
        for page in self._pages:
            outside = page.tiles[..., 1] == 0
            if outside.any():
                page.tiles[outside] = self._shared(0)
        tags = [self._tags(level) for level in range(len(self._pages))]
        self._tiff.finish(tags, within=is_ome(self.path))
        self._file.complete()

    def _tags(self, level: int) -> list[Tag]:
        page = self._pages[level]
        pixels_per_cm = 1.0 if self.mpp is None else 10_000 / (self.mpp * 2**level)
        unit = _NO_UNIT if self.mpp is None else _CENTIMETRE
        shown, hidden = page.tiles[: self.planes], page.tiles[self.planes :]
        tags = [
            number_tag(254, "long", _REDUCED if level else 0),
            number_tag(256, "long", page.width),
            number_tag(257, "long", page.height),
            number_tag(258, "short", *[8 * self.dtype.itemsize] * self.planes),
            number_tag(259, "short", _DEFLATE),
            number_tag(277, "short", self.planes),
            ratio_tag(282, pixels_per_cm),
            ratio_tag(283, pixels_per_cm),
            number_tag(284, "short", 1 if self.planes == 1 else 2),
            number_tag(296, "short", unit),
            text_tag(305, SOFTWARE),
            number_tag(322, "long", self._tile),
            number_tag(323, "long", self._tile),
            array_tag(324, shown[..., 0].ravel().tolist()),
            array_tag(325, shown[..., 1].ravel().tolist()),
            *self.page_tags(level),
        ]
        if len(hidden):
            tags.append(array_tag(HIDDEN_OFFSETS, hidden[..., 0].ravel().tolist()))
            tags.append(array_tag(HIDDEN_SIZES, hidden[..., 1].ravel().tolist()))
        return tags


_Place = tuple[int, int, int, int]
"""Level, plane, row and column of a tile."""


class _Pending(NamedTuple):
    """A tile that waits to be written: one value only, or being compressed."""

    place: _Place
    uniform: int = 0
    encoded: Future[bytes] | None = None


def compress(tile: Pixels) -> bytes:
    """A tile as it is stored: a zlib stream."""
    return bytes(imagecodecs.deflate_encode(tile.tobytes(), level=_DEFLATE_LEVEL, raw=False))
