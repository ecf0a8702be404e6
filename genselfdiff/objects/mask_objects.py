"""From a finished mask to its objects: polygons, tables, instances and images of their numbers.

mask -> bands of rows -> outlines of objects -> taken apart, where asked for -> measures -> files,
in one pass over its rows.
"""

import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genselfdiff.errors import InputError, OutputError
from genselfdiff.files import atomic_file, refuse_existing, refuse_inputs
from genselfdiff.masks import MaskCores, MaskReader
from genselfdiff.objects.geojson import SUFFIXES, GeoJsonWriter
from genselfdiff.objects.instances import Splitter, choose_splitter, least_area
from genselfdiff.objects.label_image import LABEL_SUFFIXES, LabelImage
from genselfdiff.objects.measures import measure
from genselfdiff.objects.outlines import Outline, OutlineTracer
from genselfdiff.objects.table import ObjectTable, check_table
from genselfdiff.settings import check_mpp
from genselfdiff.text import counted

logger = logging.getLogger("genselfdiff")

Uint8 = NDArray[np.uint8]

_PIXELS_TRACED = 2**20
"""Taken at once, but ``_LEAST_ROWS``: fewer cut more objects, more take more memory."""

_LEAST_ROWS = 64

_WRITTEN_AT_ONCE = 1024
"""Objects: enough for NumPy's calls not to count."""


@dataclass(frozen=True)
class ObjectCounts:
    """What ``write_objects`` has found.

    Attributes:
        sizes: for each class but the first, how many objects there are of each area in pixels.
        whole: how many objects were too large to be taken apart.
        cuts: how the others that touch were taken apart, for people; None: they were not.
    """

    sizes: dict[str, Counter[int]]
    whole: int
    cuts: str | None

    @property
    def counts(self) -> dict[str, int]:
        """The number of objects of each class but the first."""
        return {name: sizes.total() for name, sizes in self.sizes.items()}


class MaskObjects:
    """The objects of an open mask, as all that is made of them has and numbers them.

    Args:
        reader: the mask.
        instances, seed_distance, min_area, mpp: see ``write_objects``.

    Attributes:
        mpp: micrometres per pixel; None: unknown.
        splitter: takes objects apart; None: they stay as they are.
    """

    def __init__(
        self,
        reader: MaskReader,
        instances: bool | None = None,
        seed_distance: float | None = None,
        min_area: float | None = None,
        mpp: float | None = None,
    ) -> None:
        self._reader = reader
        self.mpp = mpp = reader.mpp if mpp is None else mpp
        cores = MaskCores(reader) if reader.has_cores else None
        self.splitter: Splitter | None = choose_splitter(
            instances, seed_distance, mpp, min_area, cores
        )
        least = least_area(min_area, mpp, apart=self.splitter is not None)
        self._least_pixels = least / (mpp or 1) ** 2

    def batches(self) -> Iterator[tuple[range, Sequence[Outline]]]:
        """Give some objects at a time, with their numbers, while the mask is read.

        Raises:
            InputError: the mask is damaged.
        """
        known, waiting = 1, list[Outline]()
        for outline in self._all():
            waiting.append(outline)
            if len(waiting) == _WRITTEN_AT_ONCE:
                yield range(known, known + len(waiting)), waiting
                known += len(waiting)
                waiting = []
        if waiting:
            yield range(known, known + len(waiting)), waiting

    def _all(self) -> Iterator[Outline]:
        tracer, splitter = OutlineTracer(self._reader.width, self._least_pixels), self.splitter
        rows_at_once = max(_LEAST_ROWS, _PIXELS_TRACED // self._reader.width)
        for rows in _regrouped(self._reader.bands(), rows_at_once):
            ended = tracer.push(rows)
            yield from ended if splitter is None else splitter.push(ended)
        ended = tracer.finish()
        if splitter is None:
            yield from ended
        else:
            yield from splitter.push(ended)
            yield from splitter.finish()


def write_objects(
    mask: str | Path,
    *,
    geojson: str | Path | None = None,
    table: str | Path | None = None,
    labels: str | Path | None = None,
    instances: bool | None = None,
    seed_distance: float | None = None,
    min_area: float | None = None,
    mpp: float | None = None,
    overwrite: bool = False,
) -> ObjectCounts:
    """Find the objects of a mask; write them as polygons, a table, an image, or only count them.

    An object is what hangs together of a class other than 0 by the sides of pixels. Its polygon
    follows the pixels' edges, with holes, and has the pixels' area. Objects are numbered from 1 by
    their last row, then from right to left, those that were taken apart one after the other, and
    written while the mask is read: memory follows its width and the objects that are not yet ended.

    Args:
        mask: the mask, see ``MaskReader``.
        geojson: a .geojson or .json to write, see ``GeoJsonWriter``.
        table: a .csv or .parquet to write, see ``ObjectTable``.
        labels: a .tif to write, of the mask's size, whose pixels have the number of their object,
            see ``LabelWriter``.
        instances: take objects apart that only touch; they become detections instead of
            annotations. By their cores where the mask tells these, see ``CoreSplitter``, else where
            they are thin, see ``InstanceSplitter``. None: where the mask tells cores, or
            ``seed_distance`` is given.
        seed_distance: least distance of the middles of two objects that touch, in um, or in pixels
            without mpp; None: ``instances.SEED_DISTANCE``. If given, objects are taken apart where
            they are thin, also where the mask tells cores.
        min_area: in um2, or in pixels without mpp; holes that are smaller are filled, then objects
            that are smaller are left out. None: ``instances.LEAST_OBJECT`` where objects are taken
            apart, else 0.
        mpp: micrometres per pixel, believed more than the mask.
        overwrite: replace files that exist.

    Returns:
        The number of objects by class and area.

    Raises:
        InputError: the mask cannot be read, or an option is out of range.
        OutputError: an output exists, is the mask or cannot be written; each appears whole or not
            at all.
    """
    if min_area is not None:
        check_min_area(min_area)
    if mpp is not None:
        check_mpp(mpp)
    geojson = None if geojson is None else Path(geojson)
    table = None if table is None else Path(table)
    labels = None if labels is None else Path(labels)
    _check_targets(Path(mask), geojson, table, labels, overwrite)
    with MaskReader(mask) as reader, ExitStack() as stack:
        found = MaskObjects(reader, instances, seed_distance, min_area, mpp)
        mpp, splitter = found.mpp, found.splitter
        features = rows = image = None
        if geojson is not None:
            path = stack.enter_context(atomic_file(geojson))
            features = stack.enter_context(GeoJsonWriter(path, reader, mpp, splitter is not None))
        if table is not None:
            path = stack.enter_context(atomic_file(table))
            rows = stack.enter_context(ObjectTable(path, mpp))
        if labels is not None:
            image = stack.enter_context(LabelImage(labels, reader.width, reader.height, mpp))
        sizes = {name: Counter[int]() for name in reader.class_names[1:]}
        for ids, objects in found.batches():
            measures = measure(objects)
            names = [reader.name_of(outline.label) for outline in objects]
            for name, outline in zip(names, objects, strict=True):
                sizes.setdefault(name, Counter())[outline.area] += 1
            if features is not None:
                features.write(ids, objects, measures)
            if rows is not None:
                rows.write(ids, names, objects, measures)
            if image is not None:
                image.write(ids, objects)
    whole = 0 if splitter is None else splitter.whole
    if whole:
        logger.warning("%s: too large to be taken apart: %s", mask, counted(whole, "object"))
    return ObjectCounts(sizes, whole, None if splitter is None else splitter.cuts)


def check_min_area(min_area: float) -> None:
    """Raise InputError unless ``min_area`` is a number that is not negative."""
    if not (math.isfinite(min_area) and min_area >= 0):
        raise InputError(f"smallest area {min_area:g} must be 0 or more")


def _check_targets(
    mask: Path, geojson: Path | None, table: Path | None, labels: Path | None, overwrite: bool
) -> None:
    for target, suffixes in ((geojson, SUFFIXES), (labels, LABEL_SUFFIXES)):
        if target is not None and target.suffix.lower() not in suffixes:
            raise OutputError(f"{target}: must end in {' or '.join(suffixes)}: name it so")
    if table is not None:
        check_table(table)
    targets = [target for target in (geojson, table, labels) if target is not None]
    refuse_inputs(targets, [mask])
    for target in targets:
        refuse_existing(target, overwrite)


def _regrouped(bands: Iterator[Uint8], rows: int) -> Iterator[Uint8]:
    """Join short bands and cut long ones to about as many rows."""
    waiting: list[Uint8] = []
    for band in bands:
        for y in range(0, len(band), rows):
            waiting.append(band[y : y + rows])
            if sum(map(len, waiting)) >= rows:
                yield np.concatenate(waiting)
                waiting = []
    if waiting:
        yield np.concatenate(waiting)
