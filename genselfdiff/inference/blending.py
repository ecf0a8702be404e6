"""Blending tiles that overlap, for images in memory and for slides of any height."""

import numpy as np
import torch
from numpy.typing import NDArray

from genselfdiff.inference.tiles import TileAxis

Float32 = NDArray[np.float32]


class RowBlender:
    """Blends tiles, from left to right and one row of the grid after another.

    What is finished leaves at once, so that of the image only those rows are held in which tiles of
    the row above reach into the next.

    Args:
        rows, columns: the grid.
        channels: of the tiles; the first is that of class 0.
    """

    def __init__(self, rows: TileAxis, columns: TileAxis, channels: int) -> None:
        self._rows = rows
        self._columns = columns
        self._row = rows.needed.start
        self._vertical = torch.from_numpy(rows.windows())
        self._horizontal = torch.from_numpy(columns.windows())
        self._left = columns.starts[columns.needed.start]
        width = columns.starts[columns.needed.stop - 1] + columns.tile - self._left
        deepest = max((rows.tile - rows.step(i) for i in rows.needed[:-1]), default=0)
        self._canvas = torch.zeros(channels, rows.tile, columns.tile)
        self._carried = torch.zeros(channels, deepest, width)
        self._carried_rows = 0

    def add(self, column: int, probabilities: torch.Tensor | None) -> Float32:
        """Add the next needed tile of the current row.

        Args:
            column: its place in the row.
            probabilities: (C, tile, tile) float32 on the CPU; None: class 0.

        Returns:
            (C, n, w) of what is shown and final now, the next columns of the next n rows; valid
            until the next call.
        """
        columns, tile, canvas = self._columns, self._columns.tile, self._canvas
        start = columns.starts[column] - self._left
        kept = tile - columns.step(column - 1) if column > columns.needed.start else 0
        held = canvas.numpy()  # NumPy copies within an array well, even where both parts overlap
        held[:, :, :kept] = held[:, :, tile - kept :]
        window = torch.outer(self._vertical[self._row], self._horizontal[column])
        if probabilities is None:
            canvas[:, :, kept:] = 0
            canvas[0, :, kept:] = window[:, kept:]
            canvas[0, :, :kept] += window[:, :kept]
        else:
            torch.mul(probabilities[:, :, kept:], window[:, kept:], out=canvas[:, :, kept:])
            canvas[:, :, :kept].addcmul_(probabilities[:, :, :kept], window[:, :kept])
        above = self._carried_rows
        canvas[:, :above, kept:] += self._carried[:, :above, start + kept : start + tile]

        is_last = column == columns.needed[-1]
        done = tile if is_last else columns.step(column)
        top, rows = self._rows.starts[self._row], self._rows.finished(self._row)
        below = self._rows.tile
        if self._row != self._rows.needed[-1]:
            below = self._rows.step(self._row)
            further = self._rows.tile - below
            self._carried[:, :further, start : start + done] = canvas[:, below:, :done]
        if is_last:
            self._row += 1
            self._carried_rows = self._rows.tile - below
        shown = columns.finished(column)
        left = columns.starts[column]
        finished: Float32 = held[
            :, rows.start - top : rows.stop - top, shown.start - left : shown.stop - left
        ]
        return finished
