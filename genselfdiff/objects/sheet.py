"""Many objects on one sheet, to be taken apart there with few of NumPy's calls.

Their boxes lie side by side, far enough apart that no filter reaches from one into another.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from genselfdiff.objects.outlines import Outline, OutlineTracer
from genselfdiff.objects.painting import paint

Int = NDArray[np.int64]
Float = NDArray[np.float32]
Sheet = NDArray[np.int32]

MAX_BOX = 2**22
"""Pixels of the box of an object; larger ones are not taken apart, to bound memory."""

_STEPS_PER_PIXEL = 1024
"""What distances are rounded to, so that they and a place of a box fit into one number."""


@dataclass(frozen=True)
class SheetLayout:
    """Where the boxes of objects lie on a sheet.

    Attributes:
        shape: of the sheet, its edges as far from the boxes as these are apart.
        x, y: (n,) of the boxes on the sheet.
        left, top, width, height: (n,) of the boxes in the mask.
    """

    shape: tuple[int, int]
    x: Int
    y: Int
    left: Int
    top: Int
    width: Int
    height: Int

    def boxes(self) -> Iterator[tuple[int, int, int, int, int, int]]:
        """x, y, left, top, width and height of each box."""
        columns = (self.x, self.y, self.left, self.top, self.width, self.height)
        return zip(*(column.tolist() for column in columns), strict=True)


def _lay_out(objects: Sequence[Outline], gap: int) -> SheetLayout:
    """Put boxes on shelves, the highest first, so that little is left empty."""
    boxes = np.array([o.box for o in objects], np.int64)
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    room = max(int(width.max()) + 2 * gap, math.isqrt(int(((width + gap) * (height + gap)).sum())))
    x, y = np.empty_like(width), np.empty_like(width)
    right, shelf, below = gap, gap, gap
    for i in np.argsort(-height, kind="stable").tolist():
        if right + width[i] + gap > room:
            right, shelf = gap, below
        x[i], y[i] = right, shelf
        right += int(width[i]) + gap
        below = max(below, shelf + int(height[i]) + gap)
    return SheetLayout((below, room), x, y, boxes[:, 0], boxes[:, 1], width, height)


def laid_out(objects: Sequence[Outline], gap: int) -> tuple[SheetLayout, Sheet]:
    """Objects on a sheet, whose pixels there have their numbers from 1."""
    sheet = _lay_out(objects, gap)
    moved = np.stack((sheet.y - sheet.top, sheet.x - sheet.left), axis=1)
    return sheet, paint([o.rings for o in objects], sheet.shape, moved)


def count_seeds(seeds: Sheet, owner: Sheet, count: int) -> Int:
    """How many seeds each number of an object, 0 to ``count``, has."""
    owners = _owner_of_each(seeds, owner)
    return np.bincount(owners[owners > 0], minlength=count + 1)


def _owner_of_each(pieces: Sheet, owner: Sheet) -> Int:
    """By the numbers of pieces, from 0 on: the object that they lie in; 0: there are none."""
    at = np.flatnonzero(pieces)
    number = pieces.ravel()[at]
    owners = np.zeros(int(number.max(initial=0)) + 1, np.int64)
    owners[number] = owner.ravel()[at]  # a piece lies in one object: any of its pixels will do
    return owners


def distance_to_edge(inside: NDArray[np.bool_]) -> Float:
    """From the middle of each pixel to that of the nearest one outside, in pixels."""
    from scipy import ndimage

    nearest = ndimage.distance_transform_edt(inside, return_distances=False, return_indices=True)
    y, x = nearest
    y -= np.arange(inside.shape[0], dtype=y.dtype)[:, None]
    x -= np.arange(inside.shape[1], dtype=x.dtype)
    distance: Float = np.hypot(y, x, dtype=np.float32)
    return distance


def order_of_flooding(levels: Float, owner: Sheet, sheet: SheetLayout) -> NDArray[np.float64]:
    """What the watershed floods first: the lowest level, of equal places the first of the box.

    No two places of an object are equal, so that nothing is left to the order in which all
    objects' places are kept.
    """
    y, x = np.nonzero(owner)
    of = owner[y, x] - 1
    place = (y - sheet.y[of]) * sheet.width[of] + x - sheet.x[of]
    order = np.zeros(owner.shape, np.float64)
    order[y, x] = place + np.rint(levels[y, x] * _STEPS_PER_PIXEL).astype(np.int64) * MAX_BOX
    return order


def outlines_of(
    pieces: Sheet,
    owner: Sheet,
    objects: Sequence[Outline],
    sheet: SheetLayout,
    min_area: float,
) -> dict[int, list[Outline]]:
    """Trace the pieces of objects that have several, in pixels of the mask; by object."""
    owners = _owner_of_each(pieces, owner) - 1
    cut = np.bincount(owners[owners >= 0], minlength=len(objects)) > 1
    keep = np.where((owners >= 0) & cut[owners], np.arange(len(owners)), 0).astype(np.int32)
    tracer = OutlineTracer(pieces.shape[1], min_area)
    found: dict[int, list[Outline]] = {int(i): [] for i in np.flatnonzero(cut)}
    for traced in (*tracer.push(keep[pieces]), *tracer.finish()):
        i = int(owners[traced.label])
        shift = np.array([sheet.left[i] - sheet.x[i], sheet.top[i] - sheet.y[i]])
        rings = [ring + shift for ring in traced.rings]
        found[i].append(replace(traced, label=objects[i].label, rings=rings))
    for several in found.values():
        several.sort(key=lambda o: (o.rings[0][0, 1], o.rings[0][0, 0]))
    return found
