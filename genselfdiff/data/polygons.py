"""Outlined regions to label masks."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.draw import polygon

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Region:
    """An outlined object.

    Attributes:
        label: index of its class, from 1.
        rings: (n, 2) of x and y each, the outline first, then those of holes; open or closed. The
            upper left corner of the image is (0, 0), so that pixel i reaches from i to i + 1.
    """

    label: int
    rings: tuple[Points, ...]


def draw(
    regions: Iterable[Region], height: int, width: int
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Draw regions one over the other; what lies outside the image is left out.

    A pixel belongs to the outlines that its centre is in, of crossing ones by the even-odd rule.

    Returns:
        (height, width) class indices, and instances numbered from 1 in the order of ``regions``;
        both 0 where nothing is.
    """
    classes = np.zeros((height, width), np.uint8)
    instances = np.zeros((height, width), np.int32)
    for number, region in enumerate(regions, start=1):
        outline, *holes = (_inside(ring, height, width) for ring in region.rings)
        for hole in holes:
            outline = np.setdiff1d(outline, hole, assume_unique=True)
        classes.ravel()[outline] = region.label
        instances.ravel()[outline] = number
    return classes, instances


def _inside(ring: Points, height: int, width: int) -> NDArray[np.int64]:
    """Places in the flat image of the pixels whose centres are inside."""
    if len(ring) < 3:
        return np.empty(0, np.int64)
    rows, columns = polygon(  # type: ignore[no-untyped-call]
        ring[:, 1] - 0.5, ring[:, 0] - 0.5, (height, width)
    )
    return np.asarray(rows * width + columns, np.int64)
