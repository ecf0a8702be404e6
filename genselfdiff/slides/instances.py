"""Objects that touch are taken apart: one outline for each of them.

An object of a mask is what hangs together; two nuclei that touch are one. It is cut by a watershed
of the distance to its edge. This begins at the cores that the network has learnt to tell
(`CoreSplitter`), or without such at the places that are farthest from the edge, and then cuts where
the object becomes thin between two thick places (`InstanceSplitter`). Each object is looked at by
itself, in its own box, so what becomes of it depends on nothing else: not on its neighbours, the
bands it was read in, or workers.

To spend NumPy's calls on many objects at once, their boxes are laid side by side on one sheet, far
enough apart that no filter reaches from one into another.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from genselfdiff.errors import InputError
from genselfdiff.slides.outline_steps import paint
from genselfdiff.slides.outlines import Outline, OutlineTracer

Int = NDArray[np.int64]
Float = NDArray[np.float32]
Sheet = NDArray[np.int32]

SEED_DISTANCE = 1.5
"""Micrometres. Of 1, 1.5, 2, 3 and 4, the best on the touching nuclei of MoNuSeg."""

_SEED_DISTANCE_PIXELS = 6.0
"""Where the resolution is unknown: as many at 0.25 um per pixel."""

_NECK = 0.1
"""A neck that is thinner by this than the thinner of the two sides is cut; less is a dent."""

MAX_BOX = 2**22
"""Pixels of the box of an object; larger ones are not taken apart, to bound memory."""

_SHEET = 2**20
"""Pixels in boxes of the objects that are looked at together."""

_STEPS_PER_PIXEL = 1024
"""What distances are rounded to, so that they and a place of a box fit into one number."""


_MAX_DISTANCE = 512


class Splitter:
    """Takes touching objects apart; memory is bounded by ``MAX_BOX``.

    Args:
        gap: pixels between boxes on a sheet: farther than what is done to them reaches.
        min_area: in pixels; smaller pieces are left out.

    Attributes:
        whole: how many objects were too large to be looked at, and stayed as they were.
        cuts: how objects are taken apart, for people.
    """

    cuts: str

    def __init__(self, gap: int, min_area: float) -> None:
        self.whole = 0
        self._min_area = min_area
        self._gap = gap
        self._waiting: list[Outline] = []
        self._pixels = 0

    def push(self, outlines: Sequence[Outline]) -> Iterator[Outline]:
        """Take objects; give those that are known, in the order in which they came."""
        for outline in outlines:
            self._waiting.append(outline)
            self._pixels += min(_box_pixels(outline), MAX_BOX)
            if self._pixels >= _SHEET:
                yield from self.finish()

    def finish(self) -> Iterator[Outline]:
        """Give what is left."""
        waiting, self._waiting, self._pixels = self._waiting, [], 0
        small = [i for i, o in enumerate(waiting) if _box_pixels(o) <= MAX_BOX]
        self.whole += len(waiting) - len(small)
        pieces = self._split([waiting[i] for i in small]) if small else {}
        by_place = {small[i]: found for i, found in pieces.items()}
        for i, outline in enumerate(waiting):
            yield from by_place.get(i, (outline,))

    def _split(self, objects: Sequence[Outline]) -> dict[int, list[Outline]]:
        """What becomes of those objects that do not stay as they are."""
        # Imported here: 30 MB that no other part of segmenting a slide needs.
        from skimage.segmentation import watershed

        sheet, owner = _laid_out(objects, self._gap)
        inside = owner > 0
        thickness = self._thickness(inside)
        seeds = self._seeds(thickness, inside, sheet)
        # Most objects have one seed: nothing more is asked of them.
        several = (_count_seeds(seeds, owner, len(objects)) > 1)[owner]
        if not several.any():
            return {}
        count = int(seeds.max())
        seeds[~several] = 0
        owner[~several] = 0
        order = _order_of_flooding(self._levels(thickness, seeds, sheet), owner, sheet)
        pieces = watershed(order, seeds, mask=several)  # type: ignore[no-untyped-call]
        pieces = self._joined(pieces, thickness, count)
        return _outlines_of(pieces, owner, objects, sheet, self._min_area)

    def _thickness(self, inside: NDArray[np.bool_]) -> Float:
        """How far from the edge each pixel of the sheet is; 0 outside objects."""
        return _distance_to_edge(inside)

    def _seeds(self, thickness: Float, inside: NDArray[np.bool_], sheet: "_Layout") -> Sheet:
        """Numbers from 1 of the places of the sheet at which pieces begin; 0 elsewhere."""
        raise NotImplementedError

    def _levels(self, thickness: Float, seeds: Sheet, sheet: "_Layout") -> Float:
        """How late each pixel is flooded."""
        return -thickness

    def _joined(self, pieces: Sheet, thickness: Float, count: int) -> Sheet:
        """The pieces, numbered to ``count``, without the cuts that shall not be."""
        return pieces


class InstanceSplitter(Splitter):
    """Takes objects apart at their necks, see ``Splitter``.

    Args:
        seed_distance: in pixels; places that are thickest within this distance are the middles of
            objects.
        min_area: see ``Splitter``.
    """

    cuts = "where they are thinnest"

    def __init__(self, seed_distance: float, min_area: float = 0.0) -> None:
        self._reach = max(1, round(seed_distance))
        self._sigma = seed_distance / 4
        # What a seed looks at; the smoothing reaches half as far.
        super().__init__(self._reach + 1, min_area)

    def _thickness(self, inside: NDArray[np.bool_]) -> Float:
        from scipy import ndimage

        thickness: Float = ndimage.gaussian_filter(
            _distance_to_edge(inside), self._sigma, truncate=2, mode="constant"
        )
        thickness[~inside] = 0
        return thickness

    def _seeds(self, thickness: Float, inside: NDArray[np.bool_], sheet: "_Layout") -> Sheet:
        from scipy import ndimage

        around = ndimage.maximum_filter(thickness, 2 * self._reach + 1, mode="constant")
        seeds: Sheet = ndimage.label(inside & (thickness == around))[0]
        return seeds

    def _joined(self, pieces: Sheet, thickness: Float, count: int) -> Sheet:
        return _merge_dents(pieces, thickness, count)


Cores = Callable[[int, int, int, int], NDArray[np.bool_]]
"""(left, top, width, height) of a box of the mask to where cores are in it, (height, width)."""


class CoreSplitter(Splitter):
    """Takes objects apart that have several cores, see ``Splitter``; leaves out those without.

    What the network takes for a class, but not for a thing of its own, is mostly specks and seams.

    Args:
        cores: where they are.
        min_area: see ``Splitter``.
    """

    cuts = "between the cores that the model tells"

    def __init__(self, cores: Cores, min_area: float = 0.0) -> None:
        super().__init__(2, min_area)
        self._cores = cores

    def _split(self, objects: Sequence[Outline]) -> dict[int, list[Outline]]:
        sheet, owner = _laid_out(objects, self._gap)
        cores = _count_seeds(self._cores_on(sheet, owner > 0), owner, len(objects))[1:]
        # Most objects have one core: how thick they are need not be known.
        several = np.flatnonzero(cores > 1).tolist()
        found = super()._split([objects[i] for i in several]) if several else {}
        none: dict[int, list[Outline]] = {i: [] for i in np.flatnonzero(cores == 0).tolist()}
        return none | {several[i]: pieces for i, pieces in found.items()}

    def _seeds(self, thickness: Float, inside: NDArray[np.bool_], sheet: "_Layout") -> Sheet:
        return self._cores_on(sheet, inside)

    def _levels(self, thickness: Float, seeds: Sheet, sheet: "_Layout") -> Float:
        """The nearer to a core and the farther from the edge, the sooner.

        By the latter alone, the first of two cores would flood all that is equally thick.
        """
        from scipy import ndimage

        levels = -thickness
        for x, y, width, height in np.stack(
            (sheet.x, sheet.y, sheet.width, sheet.height), axis=1
        ).tolist():
            box = slice(y, y + height), slice(x, x + width)
            levels[box] += ndimage.distance_transform_edt(seeds[box] == 0)
        return levels

    def _cores_on(self, sheet: "_Layout", inside: NDArray[np.bool_]) -> Sheet:
        from scipy import ndimage

        there = np.zeros(sheet.shape, np.bool_)
        boxes = (sheet.x, sheet.y, sheet.left, sheet.top, sheet.width, sheet.height)
        for x, y, left, top, width, height in np.stack(boxes, axis=1).tolist():
            there[y : y + height, x : x + width] = self._cores(left, top, width, height)
        seeds: Sheet = ndimage.label(there & inside)[0]
        return seeds


def choose_splitter(
    instances: bool | None,
    seed_distance: float | None,
    mpp: float | None,
    min_area: float = 0.0,
    cores: Cores | None = None,
) -> Splitter | None:
    """What takes the objects of a mask apart; None: they stay together.

    Args:
        instances: whether objects that only touch are taken apart; None: where cores are known.
        seed_distance: in um, or in pixels without ``mpp``; if given, it is done at necks, whether
            cores are known or not.
        mpp: micrometres per pixel of the mask.
        min_area: see ``Splitter``.
        cores: where cores are, if that is known.

    Raises:
        InputError: ``seed_distance`` is out of range.
    """
    distance = seed_distance_in_pixels(seed_distance, mpp)
    if not (cores is not None if instances is None else instances):
        return None
    if cores is not None and seed_distance is None:
        return CoreSplitter(cores, min_area)
    return InstanceSplitter(distance, min_area)


def seed_distance_in_pixels(seed_distance: float | None, mpp: float | None) -> float:
    """The least distance of seeds; it is given in um, in pixels without ``mpp``, None: usual.

    Raises:
        InputError: it is no positive number, or absurdly large.
    """
    if seed_distance is None:
        return _SEED_DISTANCE_PIXELS if mpp is None else SEED_DISTANCE / mpp
    pixels = seed_distance if mpp is None else seed_distance / mpp
    if not (math.isfinite(pixels) and 0 < pixels <= _MAX_DISTANCE):
        raise InputError(
            f"distance of seeds {seed_distance:g} must be above 0 and at most {_MAX_DISTANCE}"
            " pixels"
        )
    return pixels


@dataclass(frozen=True)
class _Layout:
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


def _box_pixels(outline: Outline) -> int:
    left, top, right, bottom = outline.box
    return (right - left) * (bottom - top)


def _lay_out(objects: Sequence[Outline], gap: int) -> _Layout:
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
    return _Layout((below, room), x, y, boxes[:, 0], boxes[:, 1], width, height)


def _laid_out(objects: Sequence[Outline], gap: int) -> tuple[_Layout, Sheet]:
    """Objects on a sheet, whose pixels there have their numbers from 1."""
    sheet = _lay_out(objects, gap)
    moved = np.stack((sheet.y - sheet.top, sheet.x - sheet.left), axis=1)
    return sheet, paint([o.rings for o in objects], sheet.shape, moved)


def _count_seeds(seeds: Sheet, owner: Sheet, count: int) -> Int:
    """How many seeds each number of an object, 0 to ``count``, has."""
    at = np.flatnonzero(seeds)
    _, first = np.unique(seeds.ravel()[at], return_index=True)
    return np.bincount(owner.ravel()[at[first]], minlength=count + 1)


def _distance_to_edge(inside: NDArray[np.bool_]) -> Float:
    """From the middle of each pixel to that of the nearest one outside, in pixels."""
    from scipy import ndimage

    nearest = ndimage.distance_transform_edt(inside, return_distances=False, return_indices=True)
    y, x = nearest
    y -= np.arange(inside.shape[0], dtype=y.dtype)[:, None]
    x -= np.arange(inside.shape[1], dtype=x.dtype)
    distance: Float = np.hypot(y, x, dtype=np.float32)
    return distance


def _order_of_flooding(levels: Float, owner: Sheet, sheet: _Layout) -> NDArray[np.float64]:
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


def _merge_dents(pieces: Sheet, thickness: Float, count: int) -> Sheet:
    """Join the pieces that no neck parts, the most doubtful cuts first."""
    at = np.flatnonzero(pieces)
    peak = np.zeros(count + 1, np.float32)
    np.maximum.at(peak, pieces.ravel()[at], thickness.ravel()[at])
    low, high, neck = [], [], []
    for a, b, here, there in (
        (pieces[1:], pieces[:-1], thickness[1:], thickness[:-1]),
        (pieces[:, 1:], pieces[:, :-1], thickness[:, 1:], thickness[:, :-1]),
    ):
        y, x = np.nonzero((a != b) & (a > 0) & (b > 0))
        low.append(np.minimum(a[y, x], b[y, x]))
        high.append(np.maximum(a[y, x], b[y, x]))
        neck.append(np.minimum(here[y, x], there[y, x]))
    lows, highs, necks = map(np.concatenate, (low, high, neck))
    # The widest place of each border comes first.
    order = np.lexsort((highs, lows, -necks))
    above = np.arange(count + 1)

    def find(piece: int) -> int:
        while above[piece] != piece:
            piece = int(above[piece])
        return piece

    borders: set[tuple[int, int]] = set()
    columns = (lows[order].tolist(), highs[order].tolist(), necks[order].tolist())
    for a, b, width in zip(*columns, strict=True):
        if (a, b) in borders:
            continue
        borders.add((a, b))
        first, second = sorted((find(a), find(b)))
        if first != second and width >= (1 - _NECK) * min(peak[first], peak[second]):
            above[second] = first
            peak[first] = max(peak[first], peak[second])
    return np.array([find(piece) for piece in range(count + 1)], np.int32)[pieces]


def _outlines_of(
    pieces: Sheet,
    owner: Sheet,
    objects: Sequence[Outline],
    sheet: _Layout,
    min_area: float,
) -> dict[int, list[Outline]]:
    """Trace the pieces of objects that have several, in pixels of the mask; by object."""
    at = np.flatnonzero(pieces)
    piece, first = np.unique(pieces.ravel()[at], return_index=True)
    owners = owner.ravel()[at[first]] - 1
    cut = np.bincount(owners, minlength=len(objects)) > 1
    keep = np.zeros(int(piece.max()) + 1, np.int32)
    keep[piece[cut[owners]]] = piece[cut[owners]]
    owner_of = dict(zip(piece.tolist(), owners.tolist(), strict=True))
    tracer = OutlineTracer(pieces.shape[1], min_area)
    found: dict[int, list[Outline]] = {int(i): [] for i in np.flatnonzero(cut)}
    for traced in (*tracer.push(keep[pieces]), *tracer.finish()):
        i = owner_of[traced.label]
        shift = np.array([sheet.left[i] - sheet.x[i], sheet.top[i] - sheet.y[i]])
        rings = [ring + shift for ring in traced.rings]
        found[i].append(replace(traced, label=objects[i].label, rings=rings))
    for several in found.values():
        several.sort(key=lambda o: (o.rings[0][0, 1], o.rings[0][0, 0]))
    return found
