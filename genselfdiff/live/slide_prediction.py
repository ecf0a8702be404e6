"""A slide whose blocks are predicted in any order, pixel for pixel as ``gsd segment`` does."""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from genselfdiff.inference.predictor import Predictor
from genselfdiff.inference.resample import labels_of
from genselfdiff.live.blocks import Block
from genselfdiff.progress import progress_bar
from genselfdiff.segmenting.jobs.job import requested
from genselfdiff.segmenting.layout import Layout
from genselfdiff.segmenting.one_slide import choose
from genselfdiff.segmenting.options import Options
from genselfdiff.segmenting.slide_task import SlideTask
from genselfdiff.slides import Slide

Uint8 = NDArray[np.uint8]
TileAt = tuple[int, int]
"""Row and column of a tile among those of the slide."""

_TILE_BYTES = 256 * 2**20
"""Of predicted tiles that are kept for the blocks beside those that they were predicted for."""


class SlidePrediction:
    """What a model makes of a slide.

    A block is made of all tiles that count for its pixels, blended as in the whole mask. Tiles are
    kept for a while, since neighbours share them.

    Args:
        source: the slide, open.
        predictor: the model.
        options: as of ``gsd segment``.

    Attributes:
        predictor: as given.
        batch_size: tiles predicted at once.

    Raises:
        InputError: as ``gsd segment``: the slide has no resolution, for example.
    """

    def __init__(self, source: Slide, predictor: Predictor, options: Options) -> None:
        task = SlideTask.of(source, predictor, options)
        self.predictor = predictor
        self._layout = task.layout
        self._size = source.width, source.height
        self._job = choose(task, requested(source.path, predictor, options))
        self.batch_size = self._job.batch_size
        self._parts: dict[Block, Layout] = {}
        self._tiles: OrderedDict[TileAt, torch.Tensor] = OrderedDict()
        grid = self._layout.grid
        channels = predictor.model.info.channels
        self._room = _TILE_BYTES // (4 * channels * grid.rows.tile * grid.columns.tile)
        x, y = (
            axis.starts[1] if len(axis.starts) > 1 else axis.tile
            for axis in (grid.columns, grid.rows)
        )
        self.tile_pixels = x * y * self._layout.scale**2

    def obey(self) -> None:
        """Have the predictor compute as it was chosen for this slide."""
        self.predictor.obey(self._job.precision, self._job.threads)

    def missing(self, block: Block) -> list[TileAt]:
        """The tiles that a block still lacks."""
        if block not in self._parts:
            self._parts[block] = self._layout.part(block.window(*self._size))
        grid = self._parts[block].grid
        needed = [
            (row, column)
            for row, columns in zip(grid.rows.needed, grid.wanted, strict=True)
            for column in columns
        ]
        self._room = max(self._room, 4 * len(needed))
        return [tile for tile in needed if tile not in self._tiles]

    def read(self, tiles: Sequence[TileAt]) -> torch.Tensor:
        """Read what the model sees of tiles, at most ``batch_size``: (N, 3, h, w) uint8.

        Raises:
            InputError: the slide cannot be read.
        """
        layout = self._layout
        return layout.grid.read_batch(layout.view, tiles, self.batch_size)

    def add(self, tiles: Sequence[TileAt], probabilities: torch.Tensor) -> None:
        """Keep what the model gives for tiles: (N, C, h, w)."""
        for tile, found in zip(tiles, probabilities, strict=False):
            self._tiles[tile] = found.clone() if len(probabilities) > 1 else found
            self._tiles.move_to_end(tile)
        while len(self._tiles) > self._room:
            self._tiles.popitem(last=False)

    def labels(self, block: Block) -> Uint8:
        """(height, width) classes of a block that lacks no tile."""
        part = self._parts.pop(block)
        grid, info = part.grid, self.predictor.model.info
        tiles = (
            self._tiles[row, column][None]
            for row, columns in zip(grid.rows.needed, grid.wanted, strict=True)
            for column in columns
        )
        bands = []
        with progress_bar(progress=False) as bar:
            for blocks in grid.blend(tiles, info.channels, bar):
                parts = [
                    labels_of(block[: len(info.classes)]) for block in part.resizer.push(blocks)
                ]
                if parts:
                    bands.append(np.concatenate(parts, axis=1))
        return np.concatenate(bands)
