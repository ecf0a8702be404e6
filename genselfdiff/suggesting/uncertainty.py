"""How unsure a model is of fields: entropy, and what its views of a tile disagree about."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice

import numpy as np
import torch
from numpy.typing import NDArray

from genselfdiff.inference.model_view import model_view
from genselfdiff.inference.predictor import Predictor
from genselfdiff.inference.tiles import mirror_to, to_batch
from genselfdiff.progress import progress_bar
from genselfdiff.slides import ScaledView
from genselfdiff.suggesting.candidates import Search
from genselfdiff.suggesting.field import Field

_TILE = 256
"""Side in pixels, at the model's resolution, of the tiles that are predicted."""

_TILES = 2
"""Along each side of a field: of one of 250 um at 0.25 um/px, a quarter is predicted."""

_TURNS = ((False, ()), (False, (1, 2)), (True, ()), (True, (1, 2)))
"""Of a tile, whether transposed, then which axes flipped."""

_TRIED = 4
"""Tiles by which the precision is chosen."""


def with_uncertainty(
    fields: Sequence[Field],
    predictor: Predictor,
    search: Search,
    progress: bool | None = False,
) -> list[Field]:
    """The fields with what a model is unsure of in them.

    Tiles spread over each are predicted in four flips and turns. The entropy of their mean is the
    sum of their own mean entropy and of what they disagree about, the mutual information of class
    and view (Houlsby et al. 2011, with views in the place of models).

    Args:
        fields: of a slide after the other.
        predictor: the model.
        search: how slides are opened.
        progress: see ``progress_bar``.

    Raises:
        InputError, ModelError: a slide cannot be read, or the model fails.
    """
    tiles = _tiles(fields, predictor, search)
    tried = list(islice(tiles, _TRIED))
    predictor.choose_precision(views[:1] for views in tried)
    classes = len(predictor.model.info.classes)
    found: list[tuple[float, float]] = []
    bar = progress_bar(total=_TILES**2 * len(fields), desc="uncertainty", progress=progress)
    with bar, predictor.predict_ahead(chain(tried, tiles)) as predicted:
        for views in predicted:
            found.append(_unsure_of(views[:, :classes]))
            bar.update()
    means = np.array(found).reshape(len(fields), _TILES**2, 2).mean(1)
    return [
        replace(field, uncertainty=float(entropy), disagreement=float(disagreement))
        for field, (entropy, disagreement) in zip(fields, means, strict=True)
    ]


def _tiles(fields: Sequence[Field], predictor: Predictor, search: Search) -> Iterator[torch.Tensor]:
    """(4, 3, tile, tile) uint8 views of each tile of each field."""
    multiple = predictor.model.info.size_multiple
    side = -(-_TILE // multiple) * multiple
    for path in dict.fromkeys(field.slide for field in fields):
        with search.open(path) as slide:
            view, scale = model_view(slide, predictor.model.info.mpp)
            for field in (field for field in fields if field.slide == path):
                for x, y in _corners(field, scale, side):
                    yield to_batch(_views(_read(view, x, y, side)))


def _corners(field: Field, scale: float, side: int) -> Iterator[tuple[int, int]]:
    """Corners, in pixels of the view, of tiles in the middle of equal parts of a field."""
    for row in range(_TILES):
        for column in range(_TILES):
            x = (field.x + (column + 0.5) / _TILES * field.width) / scale - side / 2
            y = (field.y + (row + 0.5) / _TILES * field.height) / scale - side / 2
            yield round(x), round(y)


def _read(view: ScaledView, x: int, y: int, side: int) -> NDArray[np.uint8]:
    x, y = max(min(x, view.width - side), 0), max(min(y, view.height - side), 0)
    width, height = min(side, view.width), min(side, view.height)
    return mirror_to(view.read(x, y, width, height), side, side)


def _views(tile: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [
        np.flip(tile.swapaxes(0, 1) if transposed else tile, tuple(axis - 1 for axis in flipped))
        for transposed, flipped in _TURNS
    ]


def _unsure_of(views: torch.Tensor) -> tuple[float, float]:
    """Entropy of the mean of (4, C, h, w) views, and their disagreement, means over pixels."""
    back = [
        probabilities.flip(flipped).transpose(1, 2) if transposed else probabilities.flip(flipped)
        for probabilities, (transposed, flipped) in zip(views, _TURNS, strict=True)
    ]
    upright = torch.stack(back).clamp(min=0)
    entropy = _entropy(upright.mean(0))
    return entropy, max(entropy - float(np.mean([_entropy(each) for each in upright])), 0.0)


def _entropy(probabilities: torch.Tensor) -> float:
    """Of (C, h, w), in nats, mean of the pixels."""
    return float(torch.special.entr(probabilities).sum(0).mean())
