"""Place, size and form of objects, from their outlines."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genselfdiff.objects.outlines import Outline

Int = NDArray[np.int64]
Float = NDArray[np.float64]


@dataclass(frozen=True)
class ObjectMeasures:
    """Measures of n objects, all (n,) and in pixels of the mask.

    Attributes:
        label: class index.
        area: without holes. perimeter: of all rings along the sides of pixels, which for round
            objects is about 4 / pi times that of a smooth line.
        x, y: centroid; 0.5, 0.5 is the middle of the first pixel.
        left, top, width, height: of the bounding box.
        diameter: of the circle of the same area.
        eccentricity: of the ellipse with the same second moments: 0 for a circle, below 1.
    """

    label: Int
    area: Int
    perimeter: Int
    x: Float
    y: Float
    left: Int
    top: Int
    width: Int
    height: Int
    diameter: Float
    eccentricity: Float


def measure(outlines: Sequence[Outline]) -> ObjectMeasures:
    """Measure one or more objects; a moment is a sum over the upright sides of all their rings."""
    lengths = np.array([sum(map(len, outline.rings)) for outline in outlines], np.int64)
    begins = np.cumsum(lengths) - lengths
    corners = np.concatenate([ring for outline in outlines for ring in outline.rings])
    low = np.minimum.reduceat(corners, begins)
    high = np.maximum.reduceat(corners, begins)
    # From the box's corner on, so that the sums are exact for all but the largest objects.
    x, y = (corners - np.repeat(low, lengths, axis=0)).astype(np.float64).T
    ring_ends = np.cumsum([len(ring) for outline in outlines for ring in outline.rings])[:-1]
    above = np.concatenate((y[:1], y[:-1]))
    above[ring_ends] = y[ring_ends]  # no side leads from one ring to the next
    dy, dyy, dyyy = y - above, y**2 - above**2, y**3 - above**3

    def total(values: Float) -> Float:
        sums: Float = np.add.reduceat(values, begins)
        return sums

    area = total(x * dy)
    mean_x, mean_y = total(x**2 * dy) / (2 * area), total(x * dyy) / (2 * area)
    xx = total(x**3 * dy) / (3 * area) - mean_x**2
    yy = total(x * dyyy) / (3 * area) - mean_y**2
    xy = total(x**2 * dyy) / (4 * area) - mean_x * mean_y
    spread = np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    ratio = ((xx + yy) / 2 - spread) / ((xx + yy) / 2 + spread)
    size = high - low
    return ObjectMeasures(
        label=np.array([outline.label for outline in outlines], np.int64),
        area=np.array([outline.area for outline in outlines], np.int64),
        perimeter=np.array([outline.perimeter for outline in outlines], np.int64),
        x=low[:, 0] + mean_x,
        y=low[:, 1] + mean_y,
        left=low[:, 0],
        top=low[:, 1],
        width=size[:, 0],
        height=size[:, 1],
        diameter=np.sqrt(4 * area / np.pi),
        eccentricity=np.sqrt(np.clip(1 - ratio, 0, 1)),
    )
