"""What people draw, and which pixels that covers: the one place where strokes become pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genselfdiff.data.polygons import Region, draw
from genselfdiff.errors import InputError

Points = NDArray[np.float64]
Bool = NDArray[np.bool_]

LARGEST_RADIUS = 500.0
"""Of a brush, in pixels of the slide."""

MOST_POINTS = 20_000
"""Of one stroke."""

_FARTHEST = 1e7

_MOST_ROWS = 2**23
"""Of pixels that the segments of a brush's stroke cross, all together."""


@dataclass(frozen=True)
class Stroke:
    """Something drawn.

    Attributes:
        kind: "brush": all within ``radius`` of a line through ``points``; "polygon": its inside;
            "object": what hangs together there already, at the one point.
        label: the class that it gives: 0 erases, 255 says that nobody knows.
        points: (n, 2) x and y in pixels of the slide; pixel i reaches from i to i + 1.
        radius: in pixels of the slide; 0 but for brushes.
    """

    kind: str
    label: int
    points: Points
    radius: float

    def record(self) -> dict[str, Any]:
        """What `stroke_of` makes the same stroke of, but for its kind."""
        return {"label": self.label, "radius": self.radius, "points": self.points.tolist()}


def stroke_of(content: Any, kind: str) -> Stroke:
    """Make a stroke of what was sent, or stands in a journal.

    Raises:
        InputError: it is none.
    """
    label, radius = content.get("label"), content.get("radius", 0.0)
    if type(label) is not int or not 0 <= label <= 255:
        raise InputError("a stroke needs the number of a class")
    is_number = isinstance(radius, int | float) and not isinstance(radius, bool)
    if kind == "brush" and not (is_number and 0.5 <= radius <= LARGEST_RADIUS):
        raise InputError(f"the radius of a brush is 0.5 to {LARGEST_RADIUS:g} pixels")
    points = content.get("points")
    least = 3 if kind == "polygon" else 1
    if not isinstance(points, list) or not least <= len(points) <= MOST_POINTS:
        raise InputError(f"a stroke has {least} to {MOST_POINTS} points")
    try:
        places = np.array(points, np.float64)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InputError("a point is two numbers") from error
    if places.shape != (len(points), 2) or not (np.abs(places) <= _FARTHEST).all():  # false for NaN
        raise InputError("a point is two numbers")
    return Stroke(kind, label, places, float(radius) if kind == "brush" else 0.0)


def covered(stroke: Stroke, left: int, top: int, width: int, height: int) -> Bool:
    """(height, width) where a brush or polygon covers the centres of pixels of a window.

    Args:
        stroke: the brush or polygon.
        left, top, width, height: the window, in pixels of the slide.

    Raises:
        InputError: a brush's stroke is too long to be drawn at once.
    """
    points = stroke.points - (left, top)
    if stroke.kind == "polygon":
        inside, _ = draw([Region(1, ((points,),))], height, width)
        return inside.astype(np.bool_)
    return _brushed(points, stroke.radius, width, height)


def box_of(stroke: Stroke, left: int, top: int, width: int, height: int) -> Sequence[int]:
    """Left, top, right and bottom, in the window, of what `covered` can be in; may be empty."""
    low = np.floor(stroke.points.min(0) - stroke.radius).astype(int) - (left, top)
    high = np.ceil(stroke.points.max(0) + stroke.radius).astype(int) + 1 - (left, top)
    size = (width, height)
    return [*np.clip(low, 0, size).tolist(), *np.clip(high, 0, size).tolist()]


def _brushed(points: Points, radius: float, width: int, height: int) -> Bool:
    """Where centres of pixels are within ``radius`` of a line through ``points``.

    Along a row, what is near a segment is one run. Its ends lie on the circles around the ends of
    the segment, or on the two lines beside it.
    """
    begin, end = points[:-1] - 0.5, points[1:] - 0.5  # centres are whole numbers from here on
    if len(points) == 1:
        begin = end = points - 0.5
    first = np.ceil(np.minimum(begin[:, 1], end[:, 1]) - radius).clip(0, height).astype(np.int64)
    last = np.floor(np.maximum(begin[:, 1], end[:, 1]) + radius).clip(-1, height - 1)
    counts = (last.astype(np.int64) + 1 - first).clip(0)
    if counts.sum() > _MOST_ROWS:
        raise InputError("the stroke is too long: lift the brush now and then")
    segment = np.repeat(np.arange(len(begin)), counts)
    row = np.arange(len(segment)) + np.repeat(first - (counts.cumsum() - counts), counts)
    step = end - begin
    length = np.hypot(step[:, 0], step[:, 1])
    with np.errstate(divide="ignore", invalid="ignore"):
        beside = step[:, ::-1] * (-1, 1) * (radius / length)[:, None]
        left, right = np.full(len(row), np.inf), np.full(len(row), -np.inf)
        for centre in (begin, end):  # NaN: the circle does not reach the row
            half = np.sqrt(radius**2 - (row - centre[segment, 1]) ** 2)
            left = np.fmin(left, centre[segment, 0] - half)
            right = np.fmax(right, centre[segment, 0] + half)
        for side in (begin + beside, begin - beside):
            share = (row - side[segment, 1]) / step[segment, 1]
            x = side[segment, 0] + share * step[segment, 0]
            x[~((share >= 0) & (share <= 1))] = np.nan
            left, right = np.fmin(left, x), np.fmax(right, x)
    # A centre that rounding has moved off the edge is on it.
    runs = np.ceil(left.round(9)).clip(0, width), (np.floor(right.round(9)) + 1).clip(0, width)
    steps = np.zeros((height, width + 1), np.int32)
    is_run = runs[0] < runs[1]
    for column, change in zip(runs, (1, -1), strict=True):
        np.add.at(steps, (row[is_run], column[is_run].astype(np.int64)), change)
    return np.asarray(steps.cumsum(1)[:, :-1] > 0)
