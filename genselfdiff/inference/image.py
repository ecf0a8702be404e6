"""Predicting an image in memory."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray

from genselfdiff.choices import SIZE_MULTIPLE
from genselfdiff.errors import InputError
from genselfdiff.inference.blending import RowBlender
from genselfdiff.inference.resample import labels_of
from genselfdiff.inference.tiles import mirror_to, tile_axis, to_batch
from genselfdiff.machine import Fetched, to_device
from genselfdiff.models.model_file import LoadedModel
from genselfdiff.models.model_info import OVERLAP
from genselfdiff.models.pixels import Picture, rgb_pixels

Uint8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]


Model = Callable[[torch.Tensor], torch.Tensor]


@overload
def predict_image(
    model: Model,
    image: Picture,
    *,
    labels: Literal[False] = False,
    tile_size: int | None = None,
    overlap: float | None = None,
    multiple: int | None = None,
    batch_size: int = 1,
    device: str | torch.device = "cpu",
) -> Float32: ...
@overload
def predict_image(
    model: Model,
    image: Picture,
    *,
    labels: Literal[True],
    tile_size: int | None = None,
    overlap: float | None = None,
    multiple: int | None = None,
    batch_size: int = 1,
    device: str | torch.device = "cpu",
) -> Uint8: ...


def predict_image(
    model: Model,
    image: Picture,
    *,
    labels: bool = False,
    tile_size: int | None = None,
    overlap: float | None = None,
    multiple: int | None = None,
    batch_size: int = 1,
    device: str | torch.device = "cpu",
) -> Float32 | Uint8:
    """Predict an image in memory tile by tile, at the resolution that it has.

    Args:
        model: a ``LoadedModel``; or anything that makes of (N, 3, h, w) uint8 on ``device``
            (N, C, h, w) float32 probabilities, h and w being multiples of ``multiple``.
        image: (H, W, 3) uint8 RGB of NumPy, an image of Pillow, or (3, H, W) or (H, W, 3) uint8 of
            torch.
        labels: give the index of the most probable class instead of probabilities.
        tile_size: side of the tiles in pixels; a smaller image is one tile. None: the model's.
        overlap: fraction of a tile that it shares with its neighbour, 0 to 0.5. None: the model's,
            or 0.25.
        multiple: of which the sides of tiles are. None: the model's, or 8.
        batch_size: tiles predicted at once.
        device: where ``model`` wants its input.

    Returns:
        (C, H, W) float32, beside the classes the cores of objects where the model tells them; with
        ``labels`` (H, W) uint8.

    Raises:
        InputError: it is no such image, a size is out of range, or ``tile_size`` is missing.
    """
    image = rgb_pixels(image)
    info = model.info if isinstance(model, LoadedModel) else None
    if tile_size is None:
        if info is None:
            raise InputError("tile_size: is missing: only a loaded model tells its own")
        tile_size = info.tile_size
    if overlap is None:
        overlap = OVERLAP if info is None else info.overlap
    if multiple is None:
        multiple = SIZE_MULTIPLE if info is None else info.size_multiple
    rows = tile_axis(image.shape[0], tile_size, overlap, multiple)
    columns = tile_axis(image.shape[1], tile_size, overlap, multiple)
    padded = mirror_to(image, rows.padded, columns.padded)
    batches = (
        (first, [padded[y : y + rows.tile, x : x + columns.tile] for x in starts])
        for y in rows.starts
        for first in range(0, len(columns.starts), batch_size)
        for starts in (columns.starts[first : first + batch_size],)
    )
    blender: RowBlender | None = None
    bands: list[list[Float32]] = []
    for first, probabilities in _predicted(model, batches, torch.device(device)):
        if blender is None:
            blender = RowBlender(rows, columns, probabilities.shape[1])
        if first == 0:
            bands.append([])
        for i, tile in enumerate(probabilities):
            bands[-1].append(blender.add(first + i, tile).copy())
    result: Float32 = np.concatenate([np.concatenate(band, axis=2) for band in bands], axis=1)
    if not labels:
        return result
    return labels_of(result if info is None else result[: len(info.classes)])


def _predicted(
    model: Model, batches: Iterator[tuple[int, Sequence[Uint8]]], device: torch.device
) -> Iterator[tuple[int, torch.Tensor]]:
    """What ``model`` makes of each batch, beside its number.

    A GPU has begun the next batch by then.
    """
    ahead = 1 if device.type == "cuda" else 0
    begun: deque[tuple[int, Fetched]] = deque()
    for number, tiles in batches:
        with torch.inference_mode():
            begun.append((number, Fetched(model(to_device(to_batch(tiles), device)))))
        if len(begun) > ahead:
            first, result = begun.popleft()
            yield first, result.tensor()
    for first, result in begun:
        yield first, result.tensor()
