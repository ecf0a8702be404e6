"""The fields that can be chosen: on tissue, and like most of it."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from genselfdiff.errors import InputError
from genselfdiff.progress import progress_bar
from genselfdiff.slides import ScaledView, Slide, TissueMap, open_slide
from genselfdiff.storage.places import Place
from genselfdiff.suggesting.field import Field
from genselfdiff.text import counted
from genselfdiff.unknown.known_tissue import KnownTissue
from genselfdiff.unknown.learning import MPP, side_of
from genselfdiff.unknown.slide_cells import cells_at

logger = logging.getLogger("genselfdiff")

Float32 = NDArray[np.float32]

_LOOKED_AT = 10
"""Cells along each side of a field by which it is judged."""

_TISSUE = 0.5
"""Share of a field that is tissue, at least."""

_UNLIKE_CELLS = 0.25
"""Share of a field's cells that may be as unlike as can be told.

Strict, for rare tissue is worth labels too: benchmarks/unknown/left_out.py says what it costs."""

_CORE = 0.75
"""Share of all cells that say what tissue looks like, where nothing else is known."""

_STEPS = 5


@dataclass(frozen=True)
class Search:
    """Where and how many fields are looked for.

    Attributes:
        size: side of a field in um.
        most: candidates of all slides together, drawn with ``seed``, about as many of each.
        seed: of the draw.
        mpp: um/px of slides whose files do not tell, see ``open_slide``.
        on_error, icc: see ``open_slide``.
    """

    size: float
    most: int
    seed: int
    mpp: float | None = None
    on_error: str = "fail"
    icc: bool = False

    def open(self, slide: Place) -> Slide:
        """Open a slide; errors as of ``open_slide``."""
        return open_slide(slide, mpp=self.mpp, on_error=self.on_error, icc=self.icc)


def find_candidates(
    slides: Sequence[Place],
    search: Search,
    known: KnownTissue | None,
    progress: bool | None = False,
) -> list[Field]:
    """Find fields on tissue that lie edge to edge, and leave out what is unlike known tissue.

    Args:
        slides: the files.
        search: see ``Search``.
        known: tissue; None: what most cells of these fields look like.
        progress: see ``progress_bar``.

    Raises:
        InputError: a slide cannot be read or has no mpp, or no field is left.
    """
    if known is not None and known.icc != search.icc:
        told = "with" if known.icc else "without"
        raise InputError(f"what is known was read {told} --icc, and fields have to be, too")
    mpp, side = (MPP, side_of(MPP)) if known is None else (known.mpp, known.side)
    of_each = math.ceil(search.most / len(slides))
    fields: list[Field] = []
    cells: list[Float32] = []
    for number, path in enumerate(progress_bar(slides, desc="fields", progress=progress)):
        with search.open(path) as slide:
            view = slide.at_mpp(mpp)
            if min(view.width, view.height) < side:
                raise InputError(f"{path}: is less than {side * mpp:g} um wide or high")
            random = np.random.default_rng((search.seed, number))
            found = _on_tissue(slide, search.size)
            drawn = np.sort(random.permutation(len(found))[:of_each])
            for index in drawn:
                fields.append(found[index])
                cells.append(_cells_of(found[index], view, side))
    if not fields:
        raise InputError(
            f"no field of {search.size:g} um has enough tissue: choose a smaller --size"
        )
    if known is None:
        known = KnownTissue.of([_majority(np.concatenate(cells))], mpp, side)
    shares = [float((known.unlikeness(each) == 1).mean()) for each in cells]
    kept = [
        replace(field, looks=_looks(each, known))
        for field, each, share in zip(fields, cells, shares, strict=True)
        if share <= _UNLIKE_CELLS
    ]
    if len(kept) < len(fields):
        logger.info(
            "%d of %s left out: unlike known tissue",
            len(fields) - len(kept),
            counted(len(fields), "field"),
        )
    if not kept:
        raise InputError(
            "all fields are unlike known tissue: leave out --like, or name other tissue"
        )
    return kept


def _on_tissue(slide: Slide, size: float) -> list[Field]:
    """All fields of a slide with enough tissue, row by row."""
    assert slide.mpp is not None
    side = max(round(size / slide.mpp), 1)
    width, height = min(side, slide.width), min(side, slide.height)
    xs, ys = _starts(slide.width, width), _starts(slide.height, height)
    shares = TissueMap(slide).fractions(xs, ys, width, height)
    return [
        Field(slide.path, xs[column], ys[row], width, height, np.zeros(0))
        for row, column in np.argwhere(shares >= _TISSUE).tolist()
    ]


def _starts(length: int, side: int) -> list[int]:
    """As many as fit edge to edge, in the middle."""
    count = length // side
    return [(length - count * side) // 2 + i * side for i in range(count)]


def _cells_of(field: Field, view: ScaledView, side: int) -> Float32:
    """(cells, n) statistics of cells spread over a field."""
    spans = (field.x, field.width, view.width), (field.y, field.height, view.height)
    xs, ys = (
        np.linspace(start / view.scale, (start + length) / view.scale - side, _LOOKED_AT)
        .round()
        .astype(int)
        .clip(0, limit - side)
        .tolist()
        for start, length, limit in spans
    )
    return cells_at(view, [(x, y) for y in ys for x in xs], side)


def _majority(cells: Float32) -> Float32:
    """The cells without those that are furthest from the others.

    As the steps of the minimum covariance determinant (Rousseeuw and Van Driessen 1999): mean and
    covariance of the nearest, in turn with which these are.
    """
    middle = np.median(cells, axis=0)
    spread = np.median(np.abs(cells - middle), axis=0) + 1e-6
    distance = np.abs((cells - middle) / spread).mean(1)
    count = max(round(_CORE * len(cells)), 1)
    for _ in range(_STEPS):
        core = cells[np.argsort(distance)[:count]]
        covariance = np.cov(core.T.astype(np.float64)) + 1e-4 * np.diag(cells.var(0) + 1e-6)
        away = cells - core.mean(0)
        distance = np.einsum("ij,ij->i", away @ np.linalg.inv(covariance), away)
    return cells[np.argsort(distance)[:count]]


def _looks(cells: Float32, known: KnownTissue) -> NDArray[np.float64]:
    """What a field looks like: mean and spread of its cells."""
    points = known.whitened(cells)
    return np.concatenate((points.mean(0), points.std(0)))
