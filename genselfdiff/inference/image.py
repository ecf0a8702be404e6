"""Predicting an image in memory."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from genselfdiff.choices import SIZE_MULTIPLE
from genselfdiff.inference.blending import RowBlender
from genselfdiff.inference.tiles import mirror_to, tile_axis, to_batch

Uint8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]


def predict_image(
    model_fn: Callable[[torch.Tensor], torch.Tensor],
    image: Uint8,
    *,
    tile_size: int,
    overlap: float = 0.25,
    multiple: int = SIZE_MULTIPLE,
    batch_size: int = 1,
    device: str | torch.device = "cpu",
) -> Float32:
    """Predict an image in memory tile by tile.

    Args:
        model_fn: (N, 3, h, w) uint8 on ``device`` to (N, C, h, w) float32 probabilities; h and w
            are multiples of ``multiple``.
        image: (H, W, 3) uint8 RGB.
        tile_size: side of the tiles in pixels; a smaller image is one tile.
        overlap: fraction of a tile that it shares with its neighbour, 0 to 0.5.
        multiple: of which the sides of tiles are.
        batch_size: tiles predicted at once.
        device: where ``model_fn`` wants its input.

    Returns:
        (C, H, W) float32.

    Raises:
        InputError: sizes out of range.
    """
    rows = tile_axis(image.shape[0], tile_size, overlap, multiple)
    columns = tile_axis(image.shape[1], tile_size, overlap, multiple)
    padded = mirror_to(image, rows.padded, columns.padded)
    blender: RowBlender | None = None
    bands: list[Float32] = []
    for y in rows.starts:
        blocks: list[Float32] = []
        for first in range(0, len(columns.starts), batch_size):
            starts = columns.starts[first : first + batch_size]
            tiles = [padded[y : y + rows.tile, x : x + columns.tile] for x in starts]
            with torch.inference_mode():
                probabilities = model_fn(to_batch(tiles).to(device)).cpu()
            if blender is None:
                blender = RowBlender(rows, columns, probabilities.shape[1])
            for i, tile in enumerate(probabilities):
                blocks.append(blender.add(first + i, tile).copy())
        bands.append(np.concatenate(blocks, axis=2))
    return np.concatenate(bands, axis=1)
