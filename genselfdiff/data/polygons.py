"""Outlined regions to label masks."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage.draw import polygon

logger = logging.getLogger("genselfdiff")

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


def has_area(outline: Points) -> bool:
    """Whether it has three different vertices or more."""
    return len(set(map(tuple, outline.tolist()))) >= 3


FEW_VERTICES = "of fewer than 3 vertices"


def warn_of_left_out(source: Path, counts: Mapping[str, int]) -> None:
    """Tell how many outlines of ``source`` are left out, by the reason."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items() if count)
    if reasons:
        logger.warning("%s: outlines left out: %s", source, reasons)


def warn_of_outside(regions: Sequence[Region], height: int, width: int, source: Path) -> None:
    """Tell how many regions have their middle outside the image, as if they were of another."""
    middles = np.array([region.rings[0].mean(0) for region in regions]).reshape(-1, 2)
    outside = ((middles < 0) | (middles > (width, height))).any(1).sum()
    if outside:
        logger.warning(
            "%s: %d of %d outlines lie outside the image of %d x %d pixels: is it the right one, at"
            " the scale of the outlines?",
            source,
            outside,
            len(regions),
            width,
            height,
        )


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
