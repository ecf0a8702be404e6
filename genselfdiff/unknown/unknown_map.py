"""A map of how unlike known tissue a slide is: a pyramid of two planes over the slide.

slide -> view -> tissue -> rows of cells, in threads -> statistics -> distance -> rows of the map
"""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genselfdiff.errors import InputError
from genselfdiff.files import refuse_existing, refuse_inputs
from genselfdiff.masks import ProbabilityWriter, PyramidShape, as_bytes, is_own_mask
from genselfdiff.progress import progress_bar
from genselfdiff.slides import open_slide
from genselfdiff.slides.fingerprint import fingerprint
from genselfdiff.storage.places import Place, local_paths, place_of
from genselfdiff.unknown.known_tissue import KnownTissue
from genselfdiff.unknown.slide_cells import SlideCells

Uint8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]

PLANES = ("known", "unknown")
"""What the planes of a map tell: of tissue they sum to 1, of glass both are 0."""

_THREADS = 4
_SUFFIXES = (".tif", ".tiff")
_ROWS_AT_ONCE = 64
"""Of the map, written at once."""


@dataclass(frozen=True)
class UnknownMap:
    """What was found.

    Attributes:
        path: the map.
        cells: how many are tissue.
        unlike: how many of these are further from what is known than its ``limit``.
    """

    path: Path
    cells: int
    unlike: int


def map_unknown(
    slide: str | Place,
    output: str | Path,
    known: KnownTissue,
    *,
    mpp: float | None = None,
    on_error: str = "fail",
    overwrite: bool = False,
    progress: bool | None = None,
) -> UnknownMap:
    """Map where a slide is unlike known tissue.

    The map has the slide's size and two planes of bytes, see ``PLANES``: 255 times
    ``KnownTissue.unlikeness``, a cell being of one value, and what it lacks of 255. It appears
    whole or not at all. A few rows of cells are held in memory, never the slide.

    Args:
        slide: see ``open_slide``.
        output: a .tif or .tiff.
        known: what tissue is compared with.
        mpp, on_error: see ``open_slide``.
        overwrite: replace a file that exists.
        progress: show a progress bar on stderr; None: only on a terminal.

    Raises:
        InputError: the slide cannot be read, is a mask of ours, has no mpp, or is too small.
        OutputError: the file exists, is an input, or cannot be written.
    """
    place, output = place_of(slide), Path(output)
    check_map(place, output, overwrite=overwrite)
    with open_slide(place, mpp=mpp, on_error=on_error, icc=known.icc) as source:
        cells = SlideCells(source, known.mpp, known.side, progress)
        shape = PyramidShape(source.width, source.height, source.mpp)
        told = {
            "slide": f"{place.name} {fingerprint(place)}",
            "cell_mpp": known.mpp,
            "cell_side": known.side,
            "icc": known.icc,
        }
        columns = _cells_of(source.width, cells.lefts, cells.view.scale)
        rows = _cells_of(source.height, cells.tops, cells.view.scale)
        unlike = 0
        with ProbabilityWriter(output, shape, class_names=PLANES, job=told) as writer:
            first = 0
            for row, values in enumerate(_unlikeness(cells, known, progress, place.name)):
                unlike += int((values > 0.5).sum())
                end = int(np.searchsorted(rows, row, side="right"))
                line = _planes(values)[:, columns]
                for top in range(first, end, _ROWS_AT_ONCE):
                    count = min(_ROWS_AT_ONCE, end - top)
                    writer.push(np.repeat(line[:, None], count, axis=1))
                first = end
    return UnknownMap(output, int(cells.wanted.sum()), unlike)


def check_map(
    slide: Place,
    output: Path,
    *,
    like: Place | None = None,
    keep: Path | None = None,
    mpp: float | None = None,
    on_error: str = "fail",
    overwrite: bool = False,
) -> None:
    """Look at what ``map_unknown`` shall read and write, and at what is known and kept beside it.

    Where tissue is still to be known from ``like``, which takes its time, the slide is opened.

    Raises:
        InputError, OutputError: as ``map_unknown``.
    """
    if output.suffix.lower() not in _SUFFIXES:
        raise InputError(f"{output}: a map is a TIFF: name a .tif")
    if keep is not None and keep.suffix.lower() != ".json":
        raise InputError(f"{keep}: what is known is kept as JSON: name a .json")
    outputs = [output] if keep is None else [output, keep]
    refuse_inputs(outputs, local_paths([slide] if like is None else [slide, like]))
    for path in outputs:
        refuse_existing(path, overwrite)
    if is_own_mask(slide):
        raise InputError(f"{slide}: is a mask that gsd has written: name the slide it is of")
    if like is not None:
        with open_slide(slide, mpp=mpp, on_error=on_error) as source:
            source.at_mpp(source.mpp or 1.0)  # which says so where it is not known


def _planes(values: Float32) -> Uint8:
    """(columns,) from 0 to 1, NaN on glass, to (2, columns)."""
    unknown = as_bytes(np.nan_to_num(values))
    return np.stack((np.where(np.isnan(values), 0, 255 - unknown).astype(np.uint8), unknown))


def _cells_of(length: int, starts: list[int], scale: float) -> NDArray[np.int64]:
    """The cell that each of the slide's pixels along an axis belongs to: the last that covers it.

    The last two overlap where the slide is no multiple of a cell.
    """
    edges = np.array([*starts[:1], *(round(start * scale) for start in starts[1:])])
    return np.searchsorted(edges, np.arange(length), side="right") - 1


def _unlikeness(
    cells: SlideCells, known: KnownTissue, progress: bool | None, name: str
) -> Iterator[Float32]:
    """(columns,) of each row of cells, NaN on glass; rows are computed ahead in threads."""

    def of(row: int) -> Float32:
        values = np.full(len(cells.lefts), np.nan, np.float32)
        wanted = cells.wanted[row]
        if wanted.any():
            values[wanted] = known.unlikeness(cells.row(row)[wanted])
        return values

    threads = min(_THREADS, os.cpu_count() or 1)
    cells.view.hold_rows(cells.view.width, cells.side * 2 * threads)
    bar = progress_bar(
        total=len(cells.tops),
        desc=name,
        bar_format="{desc} {percentage:3.0f}%|{bar}| [{elapsed}, {remaining} left]",
        progress=progress,
    )
    pending: deque[Future[Float32]] = deque()
    rows = iter(range(len(cells.tops)))
    pool = ThreadPoolExecutor(threads, "gsd-unknown")
    try:
        with bar:
            for done in range(len(cells.tops)):
                while len(pending) < 2 * threads and (row := next(rows, None)) is not None:
                    pending.append(pool.submit(of, row))
                yield pending.popleft().result()
                cells.view.forget_above(cells.tops[done])
                bar.update()
    finally:
        pool.shutdown(cancel_futures=True)
