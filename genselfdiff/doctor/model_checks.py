"""Looks at a model: whether it can be read, what it is, and whether it predicts."""

import time

import torch

from genselfdiff.doctor.findings import Finding, ok, wrong
from genselfdiff.errors import GsdError, one_line
from genselfdiff.models.formats.choosing import format_of
from genselfdiff.models.model_file import LoadedModel, find_model
from genselfdiff.storage.places import Place

_CALLS = 3
"""TorchScript prepares itself in the first two."""

_GREY = 200


def look_at_model(model: str | Place | None) -> tuple[LoadedModel | None, list[Finding]]:
    """Load a model as a run would, and predict a tile.

    Args:
        model: as ``find_model`` takes it.

    Returns:
        The model, None where it cannot be read; what was found.
    """
    try:
        loaded = find_model(model)
    except GsdError as error:
        return None, [wrong("model", one_line(error))]
    return loaded, [ok("model", _described(loaded)), _predicting(loaded)]


def _described(model: LoadedModel) -> str:
    kind = "shipped with gsd" if isinstance(model.source, str) else format_of(model.source).name
    size, info = model.path.stat().st_size / 1e6, model.info
    at = "any resolution" if info.mpp is None else f"{info.mpp:g} um/px"
    return f"{model.source}: {kind}, {size:.1f} MB, {', '.join(info.classes)} at {at}"


def _predicting(model: LoadedModel) -> Finding:
    side, classes = model.info.tile_size, len(model.info.classes)
    tile = torch.full((1, 3, side, side), _GREY, dtype=torch.uint8)
    try:
        for _ in range(_CALLS):
            begin = time.perf_counter()
            probabilities = model(tile)[:, :classes].float().cpu()
            seconds = time.perf_counter() - begin
    except (GsdError, RuntimeError) as error:
        return wrong("prediction", f"fails on {model.device}: {one_line(error)}", "export it again")
    sums = probabilities.sum(1)
    if not torch.allclose(sums, torch.ones_like(sums), atol=1e-2):  # also where one is no number
        told = f"gives no probabilities of {classes} classes: their sums are not 1"
        return wrong("prediction", told, "end its network with what gsd wrap asks for")
    speed = side * side / 1e6 / seconds
    return ok("prediction", f"{speed:.2f} Mpx/s on {model.device}, one tile of {side} at a time")
