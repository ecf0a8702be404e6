"""Filling outlines: pixels are sums, over columns and rows, of steps at the outlines' corners.

An outline goes up at the left side of its pixels and down at their right side. So a step of 1 where
a vertical side ends and of -1 where it begins, summed up from the top and from the left, is 1
inside and 0 outside, holes included; and a step costs the same however long the side is.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Int = NDArray[np.int64]


class Steps(NamedTuple):
    """Steps of rings, all (n,) int64; several can lie at one place.

    Attributes:
        ring: place of the ring among those given.
        x, y: corner; can be the right or lower edge of the mask.
        step: 1 or -1.
    """

    ring: Int
    x: Int
    y: Int
    step: Int


def steps_of(rings: Sequence[Int]) -> Steps:
    """The steps of one or more rings of outlines, see ``Outline``."""
    lengths = [len(ring) for ring in rings]
    ring = np.repeat(np.arange(len(rings)), lengths)
    x, y = np.concatenate(rings).T
    vertical = x[1:] == x[:-1]
    vertical[np.cumsum(lengths[:-1], dtype=np.int64) - 1] = False  # from a ring to the next
    begin = np.flatnonzero(vertical)
    corner = np.concatenate((begin, begin + 1))
    return Steps(ring[corner], x[corner], y[corner], np.repeat((-1, 1), len(begin)))


def paint(
    objects: Sequence[Sequence[Int]], shape: tuple[int, int], moved: Int | None = None
) -> NDArray[np.int32]:
    """Fill objects that do not overlap: pixels have the number of their object, from 1, others 0.

    Args:
        objects: the rings of each, see ``Outline``.
        shape: (H, W) of the result; no ring may reach beyond it, nor its last row and column be
            an object's, because steps lie beside and below the pixels.
        moved: (n, 2) by how much (y, x) each object is moved; None: by nothing.
    """
    painted = np.zeros(shape, np.int32)
    if not objects:
        return painted
    ring, x, y, step = steps_of([ring for rings in objects for ring in rings])
    owner = np.repeat(np.arange(len(objects)), [len(rings) for rings in objects])[ring]
    if moved is not None:
        y, x = y + moved[owner, 0], x + moved[owner, 1]
    np.add.at(painted, (y, x), (step * (owner + 1)).astype(np.int32))
    sum_up(painted, np.zeros(shape[1], np.int32))
    return painted


def sum_up(rows: NDArray[np.integer], above: NDArray[np.integer]) -> None:
    """Turn steps into pixels, in place.

    Args:
        rows: (n, width) sums of the steps at each place.
        above: (width,) sum of each column down to these rows, of the same type; kept up for the
            rows below.
    """
    for row in rows:
        above += row
        np.cumsum(above, out=row)
