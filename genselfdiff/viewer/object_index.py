"""The objects of a mask, found by place and size: what a tile shows of a million of them."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genselfdiff.masks import MaskReader
from genselfdiff.objects import MaskObjects
from genselfdiff.objects.outlines import Outline

Int = NDArray[np.int64]
Float = NDArray[np.float64]

_CELL = 64
"""Side in pixels of the smallest cells; an object lies in the cell of its middle, of the smallest
cells that are as large as it is."""

_WIDEST = 2**15 - 1
"""Pixels of an object's box whose corners are kept as 16 bits, in a file."""


_MARGIN = 4.0
"""Pixels around a tile: a line there is partly seen in it."""


class Found(NamedTuple):
    """An object at a place.

    Attributes:
        number: from 1, as in tables and GeoJSON.
        label: its class.
        area: in pixels.
        perimeter: in sides of pixels.
        rings: (n, 2) corners (x, y) of its exterior, then of its holes.
    """

    number: int
    label: int
    area: int
    perimeter: int
    rings: list[Int]


class Lines(NamedTuple):
    """Polylines.

    Attributes:
        corners: (n, 2) float32 corners (x, y) of all of them.
        starts: (m,) uint32 place in ``corners`` where each begins.
        labels: (m,) uint8 class of each.
    """

    corners: NDArray[np.float32]
    starts: NDArray[np.uint32]
    labels: NDArray[np.uint8]

    def packed(self) -> bytes:
        """The numbers of lines and corners as uint32, then the three arrays; little-endian."""
        counts = np.array([len(self.starts), len(self.corners)], "<u4")
        arrays = counts, self.corners.astype("<f4"), self.starts.astype("<u4"), self.labels
        return b"".join(array.tobytes() for array in arrays)


class ObjectIndex:
    """All objects of a mask. Corners are kept in a file without a name, the rest in memory.

    Args:
        mask: the file.
        progress: is told the share of the mask that was read, from time to time; what it raises
            ends the work.

    Attributes:
        mpp: micrometres per pixel of the mask; None: unknown.

    Raises:
        InputError: the mask cannot be read.
    """

    def __init__(self, mask: Path, progress: Callable[[float], None]) -> None:
        parts = []
        self._wide: dict[int, Int] = {}
        file = tempfile.TemporaryFile(prefix="gsd-view-")  # noqa: SIM115  # as long as the index
        with MaskReader(mask) as reader:
            found = MaskObjects(reader)
            self.mpp = found.mpp
            for ids, outlines in found.batches():
                part = _part_of(outlines)
                for i in np.flatnonzero(part.widths.max(axis=1) > _WIDEST).tolist():
                    self._wide[ids[i] - 1] = part.take_out(i)
                file.write(part.corners.astype("<i2").tobytes())
                parts.append(part._replace(corners=np.empty((0, 2), np.int64)))
                progress(float(part.boxes[-1, 3]) / reader.height)
        file.flush()

        def joined(name: str, kind: Any) -> Any:
            arrays = [getattr(part, name) for part in parts]
            return np.concatenate(arrays).astype(kind) if arrays else np.empty(0, kind)

        self._boxes = joined("boxes", np.int32).reshape(-1, 4)
        self._labels = joined("labels", np.uint8)
        self._areas, self._perimeters = joined("areas", np.int64), joined("perimeters", np.int64)
        self._begins = _begins(joined("lengths", np.int64))
        self._rings = joined("rings", np.int32)
        self._ring_begins = _begins(joined("ring_counts", np.int64))
        total = int(self._begins[-1])
        self._corners: NDArray[np.int16] = (
            np.memmap(file, "<i2", "r", shape=(total, 2)) if total else np.empty((0, 2), np.int16)
        )
        self._sort_into_cells()

    def __len__(self) -> int:
        return len(self._labels)

    def lines(self, x: float, y: float, side: float, scale: float, least: float) -> Lines:
        """Give what a square tile shows of the objects' outlines.

        Args:
            x, y: its corner in pixels of the mask.
            side: of it in pixels of the mask.
            scale: pixels of the mask per pixel of the tile, in which lines are given.
            least: side in pixels of the mask; objects in smaller boxes are left out.
        """
        beyond = _MARGIN * scale
        window = (x - beyond, y - beyond, x + side + beyond, y + side + beyond)
        chosen = self._touching(*window, least)
        corners, ring_lengths, labels = self._gathered(chosen)
        placed: Float = (corners - (x, y)).astype(np.float64) / scale
        ring = np.repeat(np.arange(len(ring_lengths)), ring_lengths)
        if scale > 1 and len(placed):  # what falls on half a pixel of the tile is one corner
            placed = np.rint(2 * placed) / 2
            new = np.ones(len(placed), np.bool_)
            new[1:] = (placed[1:] != placed[:-1]).any(axis=1) | (ring[1:] != ring[:-1])
            placed, ring = placed[new], ring[new]
        return _seen(placed, ring, labels, side / scale)

    def at(self, x: int, y: int) -> Found | None:
        """Give the object that a pixel of the mask belongs to."""
        for i in self._touching(x, y, x + 1, y + 1, 0).tolist():
            rings = self._rings_of(i)
            if sum(_is_left_of(ring, x, y) for ring in rings) % 2:
                numbers = int(self._labels[i]), int(self._areas[i]), int(self._perimeters[i])
                return Found(i + 1, *numbers, rings)
        return None

    def _sort_into_cells(self) -> None:
        """Order objects by size of cell, row and column of their cell."""
        boxes = self._boxes.astype(np.int64)
        longest = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
        self._longest = longest
        sizes = np.ceil(np.log2(np.maximum(longest, _CELL) / _CELL)).astype(np.int64)
        middle = (boxes[:, :2] + boxes[:, 2:]) // 2
        cells = middle // (_CELL << sizes)[:, None]
        self._order: dict[int, tuple[Int, Int]] = {}
        for size in np.unique(sizes).tolist():
            members = np.flatnonzero(sizes == size)
            keys = _key(cells[members, 1], cells[members, 0])
            order = np.argsort(keys, kind="stable")
            self._order[size] = keys[order], members[order]

    def _touching(self, x0: float, y0: float, x1: float, y1: float, least: float) -> Int:
        """The objects whose boxes touch a window and are at least so large, in ascending order."""
        found = [np.empty(0, np.int64)]
        for size, (keys, members) in self._order.items():
            cell = _CELL << size
            if cell < least:
                continue
            # An object reaches half a cell beyond its own.
            first, last = (int((v + s * cell / 2) // cell) for v, s in ((x0, -1), (x1, 1)))
            top, bottom = (int((v + s * cell / 2) // cell) for v, s in ((y0, -1), (y1, 1)))
            rows = np.arange(max(top, 0), bottom + 1)
            begins = np.searchsorted(keys, _key(rows, np.full_like(rows, max(first, 0))))
            ends = np.searchsorted(keys, _key(rows, np.full_like(rows, last)), side="right")
            found.append(members[_ranges(begins, np.maximum(ends - begins, 0))])
        members = np.sort(np.concatenate(found))
        boxes = self._boxes[members]
        touching = (boxes[:, 0] < x1) & (boxes[:, 2] > x0) & (boxes[:, 1] < y1) & (boxes[:, 3] > y0)
        return members[touching & (self._longest[members] >= least)]

    def _gathered(self, chosen: Int) -> tuple[Int, Int, NDArray[np.uint8]]:
        """Corners of some objects, the lengths of all their rings, and the class of each ring."""
        counts = np.diff(self._ring_begins)[chosen]
        lengths = self._rings[_ranges(self._ring_begins[chosen], counts)].astype(np.int64)
        labels = np.repeat(self._labels[chosen], counts)
        if self._wide and np.isin(chosen, list(self._wide)).any():
            rings = [corners for i in chosen.tolist() for corners in self._rings_of(i)]
            return np.concatenate(rings), lengths, labels
        sizes = np.diff(self._begins)[chosen]
        corners = self._corners[_ranges(self._begins[chosen], sizes)].astype(np.int64)
        return corners + np.repeat(self._boxes[chosen, :2], sizes, axis=0), lengths, labels

    def _rings_of(self, i: int) -> list[Int]:
        corners: Int
        if i in self._wide:
            corners = self._wide[i]
        else:
            near = self._corners[self._begins[i] : self._begins[i + 1]]
            corners = near.astype(np.int64) + self._boxes[i, :2]
        lengths = self._rings[self._ring_begins[i] : self._ring_begins[i + 1]]
        return np.split(corners, np.cumsum(lengths)[:-1])


class _Part(NamedTuple):
    """Some objects: what ``ObjectIndex`` keeps of each, corners from the corner of its box on."""

    boxes: Int
    labels: Int
    areas: Int
    perimeters: Int
    corners: Int
    lengths: Int
    rings: Int
    ring_counts: Int

    @property
    def widths(self) -> Int:
        return self.boxes[:, 2:] - self.boxes[:, :2]

    def take_out(self, i: int) -> Int:
        """The corners of an object, which are zero from now on."""
        begin = int(self.lengths[:i].sum())
        own = self.corners[begin : begin + int(self.lengths[i])]
        taken = own + self.boxes[i, :2]
        own[:] = 0
        return taken


def _part_of(outlines: Sequence[Outline]) -> _Part:
    rings = [ring for outline in outlines for ring in outline.rings]
    ring_lengths = np.array([len(ring) for ring in rings])
    ring_counts = np.array([len(outline.rings) for outline in outlines])
    lengths = np.add.reduceat(ring_lengths, _begins(ring_counts)[:-1])
    corners = np.concatenate(rings)
    begins = _begins(lengths)[:-1]
    low, high = np.minimum.reduceat(corners, begins), np.maximum.reduceat(corners, begins)
    return _Part(
        boxes=np.concatenate((low, high), axis=1),
        labels=np.array([outline.label for outline in outlines]),
        areas=np.array([outline.area for outline in outlines]),
        perimeters=np.array([outline.perimeter for outline in outlines]),
        corners=corners - np.repeat(low, lengths, axis=0),
        lengths=lengths,
        rings=ring_lengths,
        ring_counts=ring_counts,
    )


def _begins(lengths: Int) -> Int:
    return np.concatenate(([0], np.cumsum(lengths)))


def _ranges(begins: Int, lengths: Int) -> Int:
    """All numbers of several ranges, one after the other."""
    return np.repeat(begins - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())


def _key(row: Int, column: Int) -> Int:
    return (row << 32) + column


def _is_left_of(ring: Int, x: int, y: int) -> bool:
    """Whether an odd number of a ring's upright sides lies right of the middle of a pixel."""
    (x0, y0), (_, y1) = ring[:-1].T, ring[1:].T
    crossed = (np.minimum(y0, y1) <= y) & (np.maximum(y0, y1) > y) & (x0 > x)
    return bool(np.count_nonzero(crossed) % 2)


def _seen(corners: Float, ring: Int, labels: NDArray[np.uint8], side: float) -> Lines:
    """The parts of rings that are seen in a tile.

    Args:
        corners: (n, 2) corners of all rings in pixels of the tile.
        ring: (n,) which ring each belongs to.
        labels: class of each ring.
        side: of the tile.
    """
    low, high = np.minimum(corners[:-1], corners[1:]), np.maximum(corners[:-1], corners[1:])
    near = ((high > -_MARGIN) & (low < side + _MARGIN)).all(axis=1) & (ring[:-1] == ring[1:])
    leaves, comes = np.append(near, False)[: len(corners)], np.append(False, near)[: len(corners)]
    kept = leaves | comes
    starts = np.flatnonzero((leaves & ~comes)[kept])
    return Lines(
        corners[kept].astype(np.float32),
        starts.astype(np.uint32),
        labels[ring[kept][starts]],
    )


def rings_shown(rings: Sequence[Int], most: int) -> Iterator[list[list[int]]]:
    """Rings as lists, as long as they have no more than so many corners together."""
    for ring in rings:
        most -= len(ring)
        if most >= 0:
            yield ring.tolist()
