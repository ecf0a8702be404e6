"""Outlined regions to label masks."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genselfdiff.data.labelled_folder import IGNORED
from genselfdiff.errors import InputError
from genselfdiff.text import counted

logger = logging.getLogger("genselfdiff")

Points = NDArray[np.float64]

FARTHEST = 1e9
"""Pixels from the corner of an image, beyond which no vertex can be meant."""

NO_PLACES = "with vertices that are no places"

_CROSSINGS_AT_ONCE = 2**20


@dataclass(frozen=True)
class Region:
    """An outlined object.

    Attributes:
        label: index of its class. Where it is 0, the background, or `IGNORED`, the region is no
            object, and what it covers is not one any more.
        polygons: its parts, each of (n, 2) rings of x and y, the outline first, then those of
            holes; open or closed. The upper left corner of the image is (0, 0), so that pixel i
            reaches from i to i + 1.
    """

    label: int
    polygons: tuple[tuple[Points, ...], ...]

    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom."""
        points = np.concatenate([rings[0] for rings in self.polygons])
        (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
        return left, top, right, bottom

    def area(self) -> float:
        """Of what the outlines enclose, holes and all."""
        return sum(_area(rings[0]) for rings in self.polygons)


class Boxes:
    """The boxes of regions, to find those that meet another."""

    def __init__(self, regions: Sequence[Region]) -> None:
        self._boxes = np.array([region.box() for region in regions]).reshape(-1, 4)

    def meeting(self, left: float, top: float, right: float, bottom: float) -> NDArray[np.bool_]:
        """(regions,) True for those whose boxes overlap with this one."""
        begins = (self._boxes[:, :2] < (right, bottom)).all(1)
        return np.asarray(begins & (self._boxes[:, 2:] > (left, top)).all(1))


def outline(vertices: Sequence[Any]) -> Points:
    """Make (n, 2) x and y of what a file has as vertices; further coordinates (z) are dropped.

    Raises:
        InputError: a vertex is no place in an image; it says `NO_PLACES`.
    """
    try:
        points = np.array([(float(x), float(y)) for x, y, *_ in vertices], np.float64)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(NO_PLACES) from error
    if not (np.abs(points) <= FARTHEST).all():  # false for NaN
        raise InputError(NO_PLACES)
    return points.reshape(-1, 2)


def has_area(points: Points) -> bool:
    """Whether an outline has three different vertices or more."""
    return len(set(map(tuple, points.tolist()))) >= 3


def warn_of_outside(regions: Sequence[Region], height: int, width: int, source: Path) -> None:
    """Tell how many regions have their middle outside the image, as if they were of another."""
    outlines = [np.concatenate([rings[0] for rings in region.polygons]) for region in regions]
    middles = np.array([points.mean(0) for points in outlines]).reshape(-1, 2)
    outside = ((middles < 0) | (middles > (width, height))).any(1).sum()
    if outside:
        logger.warning(
            "%s: outside the image of %d x %d pixels: %d of %s: is it the right one, at the scale"
            " of the outlines?",
            source,
            width,
            height,
            outside,
            counted(len(outlines), "outline"),
        )


def draw(
    regions: Iterable[Region], height: int, width: int
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Draw regions one over the other; what lies outside the image is left out.

    A pixel belongs to the outlines that its centre is in or on, of crossing ones by the even-odd
    rule.

    Returns:
        (height, width) class indices, and instances numbered from 1 in the order of ``regions``;
        both 0 where nothing is.
    """
    classes = np.zeros((height, width), np.uint8)
    instances = np.zeros((height, width), np.int32)
    for number, region in enumerate(regions, start=1):
        is_object = region.label not in (0, IGNORED)
        for rings in region.polygons:
            (left, top), (right, bottom) = rings[0].min(0), rings[0].max(0)
            x, y = (max(int(np.floor(place)), 0) for place in (left, top))
            window = np.s_[
                y : max(int(np.ceil(bottom)) + 1, y), x : max(int(np.ceil(right)) + 1, x)
            ]
            inside = np.zeros_like(classes[window], np.bool_)
            rows, columns = inside.shape
            for ring in rings:
                for row, begin, end in _runs(ring - (x, y), rows, columns):
                    inside[row, begin:end] = ring is rings[0]
            classes[window][inside] = region.label
            instances[window][inside] = number if is_object else 0
    return classes, instances


def _runs(ring: Points, height: int, width: int) -> Iterator[tuple[int, int, int]]:
    """Row, begin and end of the pixels in each row whose centres are in or on a ring."""
    if len(ring) < 3 or not height or not width:
        return
    x, y = ring.T - 0.5  # centres of pixels are whole numbers from here on
    x2, y2 = np.append(x[1:], x[0]), np.append(y[1:], y[0])
    on_centres = y == np.rint(y)
    if on_centres.any():  # vertices, and level edges, of which the crossings have one side only
        level = on_centres & (y == y2)
        rows = np.concatenate((y[on_centres], y[level])).astype(np.int64)
        left = np.concatenate((x[on_centres], np.minimum(x, x2)[level]))
        right = np.concatenate((x[on_centres], np.maximum(x, x2)[level]))
        yield from _clipped(rows, left, right, height, width)
    upper, lower = np.ceil(np.minimum(y, y2)), np.ceil(np.maximum(y, y2))
    bands = [(0, height)]
    while bands:
        top, bottom = bands.pop()
        # An edge crosses the rows from its upper end on, but for its lower end.
        begins = np.minimum(np.maximum(upper, top), bottom).astype(np.int64)
        counts = np.minimum(np.maximum(lower, top), bottom).astype(np.int64) - begins
        if bottom - top > 1 and counts.sum() > _CROSSINGS_AT_ONCE:
            middle = (top + bottom) // 2
            bands += [(top, middle), (middle, bottom)]
            continue
        edges = np.repeat(np.arange(len(ring)), counts)
        rows = np.arange(len(edges)) + np.repeat(begins - counts.cumsum() + counts, counts)
        places = x[edges] + (rows - y[edges]) / (y2 - y)[edges] * (x2 - x)[edges]
        order = np.lexsort((places, rows))
        rows, places = rows[order][::2], places[order]
        yield from _clipped(rows, places[::2], places[1::2], height, width)


def _clipped(
    rows: NDArray[np.int64], left: Points, right: Points, height: int, width: int
) -> Iterator[tuple[int, int, int]]:
    # Crossings that rounding has moved off a centre by less than can be meant are on it.
    begins = np.maximum(np.ceil(left.round(9)), 0)
    ends = np.minimum(np.floor(right.round(9)) + 1, width)
    used = (begins < ends) & (rows >= 0) & (rows < height)
    runs = (rows[used], begins[used].astype(np.int64), ends[used].astype(np.int64))
    return zip(*(each.tolist() for each in runs), strict=True)


def _area(points: Points) -> float:
    x, y = (points - points[0]).T
    return abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2
