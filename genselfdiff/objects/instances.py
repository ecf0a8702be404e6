"""Objects that touch are taken apart: one outline for each of them.

What hangs together in a mask is one object; so are two nuclei that touch. It is cut by a watershed,
which begins at the cores that the network has learnt to tell (`CoreSplitter`), or without such at
the places that are farthest from the edge, to cut where the object becomes thin between two thick
places (`InstanceSplitter`). Each object is looked at by itself, in its own box, so what becomes of
it depends on nothing else: not on its neighbours, the bands it was read in, or workers.

To spend NumPy's calls on many objects at once, they are laid out on sheets (`sheet`).
"""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from genselfdiff.errors import InputError
from genselfdiff.objects.outlines import Outline
from genselfdiff.objects.sheet import (
    MAX_BOX,
    Float,
    Sheet,
    SheetLayout,
    count_seeds,
    distance_to_edge,
    laid_out,
    order_of_flooding,
    outlines_of,
)

SEED_DISTANCE = 1.5
"""Micrometres. Of 1, 1.5, 2, 3 and 4, the best on the touching nuclei of MoNuSeg."""

_SEED_DISTANCE_PIXELS = 6.0
"""Where the resolution is unknown: as many at 0.25 um per pixel."""

LEAST_CORE = 1.5
"""Square micrometres. Smaller ones are mostly cores of nothing; those of nuclei have 5 and more."""

_LEAST_CORE_PIXELS = 24.0
"""Where the resolution is unknown: as many at 0.25 um per pixel."""

LEAST_OBJECT = 4.0
"""Square micrometres. Of objects that are taken apart smaller ones are specks: of 168 that the
nuclei model left in six test images one was a nucleus, of those of 4 to 6 every other."""

_LEAST_OBJECT_PIXELS = 64.0
"""Where the resolution is unknown: as many at 0.25 um per pixel."""

_NECK = 0.1
"""A neck that is thinner by this than the thinner of the two sides is cut; less is a dent."""

_SHEET = 2**20
"""Pixels in boxes of the objects that are looked at together."""

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

        sheet, owner = laid_out(objects, self._gap)
        inside = owner > 0
        thickness = self._thickness(inside)
        seeds = self._seeds(thickness, inside, sheet)
        # Most objects have one seed: nothing more is asked of them.
        several = (count_seeds(seeds, owner, len(objects)) > 1)[owner]
        if not several.any():
            return {}
        count = int(seeds.max())
        seeds[~several] = 0
        owner[~several] = 0
        order = order_of_flooding(self._levels(thickness, seeds, sheet), owner, sheet)
        pieces = watershed(order, seeds, mask=several)  # type: ignore[no-untyped-call]
        pieces = self._joined(pieces, thickness, count)
        return outlines_of(pieces, owner, objects, sheet, self._min_area)

    def _thickness(self, inside: NDArray[np.bool_]) -> Float:
        """How far from the edge each pixel of the sheet is; 0 outside objects."""
        return distance_to_edge(inside)

    def _seeds(self, thickness: Float, inside: NDArray[np.bool_], sheet: SheetLayout) -> Sheet:
        """Numbers from 1 of the places of the sheet at which pieces begin; 0 elsewhere."""
        raise NotImplementedError

    def _levels(self, thickness: Float, seeds: Sheet, sheet: SheetLayout) -> Float:
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
            distance_to_edge(inside), self._sigma, truncate=2, mode="constant"
        )
        thickness[~inside] = 0
        return thickness

    def _seeds(self, thickness: Float, inside: NDArray[np.bool_], sheet: SheetLayout) -> Sheet:
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
        least: pixels of a core; smaller ones are none.
        min_area: see ``Splitter``.
    """

    cuts = "between the cores that the model tells"

    def __init__(self, cores: Cores, least: float, min_area: float = 0.0) -> None:
        super().__init__(2, min_area)
        self._cores = cores
        self._least = least

    def _split(self, objects: Sequence[Outline]) -> dict[int, list[Outline]]:
        sheet, owner = laid_out(objects, self._gap)
        cores = count_seeds(self._cores_on(sheet, owner > 0), owner, len(objects))[1:]
        # Most objects have one core: how thick they are need not be known.
        several = np.flatnonzero(cores > 1).tolist()
        found = super()._split([objects[i] for i in several]) if several else {}
        none: dict[int, list[Outline]] = {i: [] for i in np.flatnonzero(cores == 0).tolist()}
        return none | {several[i]: pieces for i, pieces in found.items()}

    def _seeds(self, thickness: Float, inside: NDArray[np.bool_], sheet: SheetLayout) -> Sheet:
        return self._cores_on(sheet, inside)

    def _levels(self, thickness: Float, seeds: Sheet, sheet: SheetLayout) -> Float:
        """The nearer to a core and the farther from the edge, the sooner.

        By the latter alone, the first of two cores would flood all that is equally thick.
        """
        from scipy import ndimage

        levels = -thickness
        for x, y, _, _, width, height in sheet.boxes():
            box = slice(y, y + height), slice(x, x + width)
            levels[box] += ndimage.distance_transform_edt(seeds[box] == 0)
        return levels

    def _cores_on(self, sheet: SheetLayout, inside: NDArray[np.bool_]) -> Sheet:
        from scipy import ndimage

        there = np.zeros(sheet.shape, np.bool_)
        for x, y, left, top, width, height in sheet.boxes():
            there[y : y + height, x : x + width] = self._cores(left, top, width, height)
        seeds: Sheet = ndimage.label(there & inside)[0]
        seeds[(np.bincount(seeds.ravel()) < self._least)[seeds]] = 0
        return seeds


def taken_apart(instances: bool | None, seed_distance: float | None, *, has_cores: bool) -> bool:
    """Whether objects that touch are taken apart, as said or, where nothing is, if it can be.

    Args:
        instances: what is said of it.
        seed_distance: also says it.
        has_cores: whether a model or mask tells cores.
    """
    return has_cores or seed_distance is not None if instances is None else instances


def choose_splitter(
    instances: bool | None,
    seed_distance: float | None,
    mpp: float | None,
    min_area: float | None = None,
    cores: Cores | None = None,
) -> Splitter | None:
    """What takes the objects of a mask apart; None: they stay together.

    Args:
        instances: whether objects that only touch are taken apart; None: where cores are known, or
            ``seed_distance`` is given.
        seed_distance: in um, or in pixels without ``mpp``; if given, it is done at necks, whether
            cores are known or not.
        mpp: micrometres per pixel of the mask.
        min_area: see ``least_area``.
        cores: where cores are, if that is known.

    Raises:
        InputError: ``seed_distance`` is out of range.
    """
    distance = seed_distance_in_pixels(seed_distance, mpp)
    if not taken_apart(instances, seed_distance, has_cores=cores is not None):
        return None
    pixels = least_area(min_area, mpp, apart=True) / (mpp or 1) ** 2
    if cores is not None and seed_distance is None:
        least = _LEAST_CORE_PIXELS if mpp is None else LEAST_CORE / mpp**2
        return CoreSplitter(cores, least, pixels)
    return InstanceSplitter(distance, pixels)


def least_area(min_area: float | None, mpp: float | None, *, apart: bool) -> float:
    """The least area of an object, in um2, or in pixels without ``mpp``.

    It is ``min_area``; None: the usual one where objects are taken ``apart``, else 0.
    """
    if min_area is not None:
        return min_area
    if not apart:
        return 0.0
    return _LEAST_OBJECT_PIXELS if mpp is None else LEAST_OBJECT


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


def _box_pixels(outline: Outline) -> int:
    left, top, right, bottom = outline.box
    return (right - left) * (bottom - top)


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
