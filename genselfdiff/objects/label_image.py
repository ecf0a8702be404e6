"""The objects of a mask as an image of their numbers, in memory that follows its width.

An object is known only when it ends, its first row is written first: what the image is made of
waits in a file, by bands of rows. These are the steps of the objects' outlines, see
``painting``: few, of whatever size the object.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from genselfdiff.masks import PyramidShape, PyramidWriter
from genselfdiff.masks.bigtiff import Tag, number_tag, text_tag
from genselfdiff.masks.ome_description import is_ome, ome_description
from genselfdiff.objects.outlines import Outline
from genselfdiff.objects.painting import steps_of, sum_up

Uint32 = NDArray[np.uint32]

LABEL_SUFFIXES = (".tif", ".tiff")

_BAND_ROWS = 64
"""Painted at once; few, to take little memory of a wide mask."""

_STEPS_HELD = 2**18
"""In memory, before they are put into the file."""

_GREY = 1
_DEFLATE_LEVEL = 1
"""The file is read once, and soon."""


class LabelWriter(PyramidWriter):
    """Writes numbers of objects, uint32, 0 where there is none; see ``PyramidWriter``.

    A pixel of a smaller page is the upper left of the four below it: numbers cannot be blended. The
    ImageDescription of the first page is JSON, ``{"mpp": ..., "objects": ...}``; in an OME-TIFF it
    is an annotation.

    Attributes:
        objects: how many there are; set before the end.
    """

    dtype = np.dtype(np.uint32)

    def __init__(self, path: Path, shape: PyramidShape) -> None:
        super().__init__(path, shape, planes=1)
        self.objects = 0

    def halve(self, rows: Uint32) -> Uint32:  # noqa: D102
        return rows[:, ::2, ::2]

    def page_tags(self, level: int) -> list[Tag]:  # noqa: D102
        tags = [number_tag(262, "short", _GREY)]
        if level == 0:
            told: dict[str, Any] = {"mpp": self.mpp, "objects": self.objects}
            text = json.dumps(told, sort_keys=True)
            if is_ome(self.path):
                size = self.width, self.height
                text = ome_description(
                    self.path.name, *size, told, pixel="uint32", channel="object"
                )
            tags.append(text_tag(270, text))
        return tags


class LabelImage:
    """Writes an image of objects that come in any order; use as a context manager.

    Meanwhile a file without a name grows in the image's folder. The image appears, whole or not at
    all, when the block ends well.

    Args:
        path: the .tif to write, see ``LabelWriter``.
        width, height: in pixels.
        mpp: micrometres per pixel, or None.

    Raises:
        OutputError: the image cannot be written.
    """

    def __init__(self, path: Path, width: int, height: int, mpp: float | None) -> None:
        self._writer = LabelWriter(path, PyramidShape(width, height, mpp))
        self._bands = -(-height // _BAND_ROWS)
        self._held: list[tuple[NDArray[np.int64], Uint32]] = []
        self._count = 0
        self._stack = ExitStack()

    def __enter__(self) -> "LabelImage":
        with ExitStack() as stack:
            stack.enter_context(self._writer)  # first: it tells what is wrong with the folder
            folder = self._writer.path.parent
            self._spool = stack.enter_context(_Spool(folder, self._bands))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._stack:
            if error is not None:
                raise error
            self._put_away()
            self._paint()

    def write(self, ids: Sequence[int], objects: Sequence[Outline]) -> None:
        """Add one or more objects, which share no pixel with others, under their numbers."""
        rings = [ring for outline in objects for ring in outline.rings]
        of_ring = np.repeat(np.asarray(ids, np.int64), [len(outline.rings) for outline in objects])
        ends = np.cumsum([len(ring) for ring in rings])
        cuts = np.flatnonzero(np.diff(ends // _STEPS_HELD, append=-1)) + 1
        for begin, end in pairwise([0, *cuts.tolist()]):
            self._hold(rings[begin:end], of_ring[begin:end])
        self._writer.objects += len(objects)

    def _hold(self, rings: Sequence[NDArray[np.int64]], ids: NDArray[np.int64]) -> None:
        ring, x, y, step = steps_of(rings)
        seen = (x < self._writer.width) & (y < self._writer.height)
        # A step down is 2**32 less its number: sums come out right modulo 2**32.
        numbers = (ids[ring] * step).astype(np.uint32)
        self._held.append(((y * self._writer.width + x)[seen], numbers[seen]))
        self._count += int(np.count_nonzero(seen))
        if self._count >= _STEPS_HELD:
            self._put_away()

    def _put_away(self) -> None:
        if self._held:
            places, numbers = map(np.concatenate, zip(*self._held, strict=True))
            self._spool.add(places, numbers, _BAND_ROWS * self._writer.width)
        self._held, self._count = [], 0

    def _paint(self) -> None:
        width, height = self._writer.width, self._writer.height
        above = np.zeros(width, np.uint32)
        for band in range(self._bands):
            rows = np.zeros((min(_BAND_ROWS, height - band * _BAND_ROWS), width), np.uint32)
            for places, numbers in self._spool.read(band):
                np.add.at(rows.reshape(-1), places, numbers)
            sum_up(rows, above)
            self._writer.push(rows[None])


class _Spool:
    """Steps that wait for their band; use as a context manager.

    Args:
        folder: where they lie, in a file that has no name and goes when it is closed.
        bands: how many there are.
    """

    def __init__(self, folder: Path, bands: int) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._chunks: list[list[tuple[int, int]]] = [[] for _ in range(bands)]

    def __enter__(self) -> "_Spool":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # closing tries once more to write what did not fit
            self._file.close()

    def add(self, places: NDArray[np.int64], numbers: Uint32, size: int) -> None:
        """Put away steps at ``places``, counted in pixels of the image; a band has ``size``."""
        bands, within = np.divmod(places, size)
        order = np.argsort(bands, kind="stable")
        both = np.stack((within.astype(np.uint32)[order], numbers[order]))
        there, begins = np.unique(bands[order], return_index=True)
        ends = np.append(begins[1:], len(order))
        for band, begin, end in zip(there, begins, ends, strict=True):
            data = imagecodecs.deflate_encode(both[:, begin:end].tobytes(), level=_DEFLATE_LEVEL)
            self._chunks[band].append((self._file.tell(), len(data)))
            self._file.write(data)

    def read(self, band: int) -> Iterator[tuple[Uint32, Uint32]]:
        """(n,) places in the band, and the numbers of the steps there, chunk by chunk."""
        for offset, length in self._chunks[band]:
            self._file.seek(offset)
            data = imagecodecs.deflate_decode(self._file.read(length))
            places, numbers = np.frombuffer(data, np.uint32).reshape(2, -1)
            yield places, numbers
