"""What segmenting a slide would take, from a few of its tiles; nothing is written."""

import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genselfdiff.inference.engine import READ_AHEAD, choose
from genselfdiff.inference.job import requested
from genselfdiff.inference.layout import Layout, lay_out
from genselfdiff.inference.model_file import LoadedModel, find_model
from genselfdiff.inference.options import Options
from genselfdiff.inference.predictor import MAX_WORKERS, Predictor
from genselfdiff.inference.resample import BAND, RowResizer, labels_of
from genselfdiff.inference.tile_grid import TileGrid
from genselfdiff.slides import ScaledView, open_slide

MEASURED_TILES = 16
"""Read and predicted to tell the time: two for each worker at most."""

_MASK_TILE = 512
"""Rows and columns of the tiles that ``MaskWriter`` gathers."""


@dataclass(frozen=True)
class Estimate:
    """What ``estimate`` has found.

    ``level`` is the slide's level that is read and ``downsample`` its level-0 pixels per pixel,
    ``scale`` the model's pixel size in level-0 pixels, ``tiles`` those to predict, ``skipped``
    those without tissue, ``memory`` a bound in bytes, ``seconds`` the time from measured tiles.
    """

    slide: Path
    width: int
    height: int
    mpp: float | None
    level: int
    downsample: float
    scale: float
    tiles: int
    skipped: int
    memory: int
    seconds: float
    device: str
    precision: str

    def summary(self) -> str:
        """A line for people."""
        minutes, seconds = divmod(round(self.seconds), 60)
        mpp = "unknown" if self.mpp is None else f"{self.mpp:g}"
        return (
            f"{self.slide}: {self.width} x {self.height} pixels of {mpp} um; level {self.level}"
            f" (downsample {self.downsample:g}), scale {self.scale:g}; {self.tiles} tiles"
            f" ({self.skipped} without tissue skipped); memory below"
            f" {self.memory / 2**30:.2f} GiB; about {minutes} min {seconds} s on {self.device} in"
            f" {self.precision}"
        )


def estimate(
    slide: str | Path,
    model: Predictor | LoadedModel | str | Path | None = None,
    *,
    device: str | None = None,
    precision: str = "auto",
    tta: int = 1,
    **options: Any,
) -> Estimate:
    """Tell what ``segment`` would do with the same arguments, and what it would take.

    A few tiles, spread over the tissue, are read and predicted. The time is that of a machine as
    busy as it is now. The memory is that of this process, not of a GPU.

    Raises:
        InputError, ModelError: as ``segment``.
    """
    predictor = (
        model
        if isinstance(model, Predictor)
        else Predictor(find_model(model, device), precision, tta)
    )
    return estimate_slide(Path(slide), predictor, Options(**options))


def estimate_slide(path: Path, predictor: Predictor, options: Options) -> Estimate:
    """Do what ``estimate`` does."""
    with open_slide(path, mpp=options.mpp, on_error=options.on_error) as source:
        layout = lay_out(source, predictor.model.info, options)
        view, grid, (_, _, columns, rows) = layout.view, layout.grid, layout.window
        job = choose(requested(path, predictor, options), predictor, layout)
        classes = len(predictor.model.info.classes)
        per_tile = _seconds_per_tile(predictor, grid, view)
        seconds = grid.tiles * per_tile + rows * _seconds_per_row(classes, columns)
        memory = _peak_so_far() + source.memory_bound()
        memory += _held_bytes(layout, classes, job["batch size"])
        level = source.levels[view.level]
        return Estimate(
            slide=path,
            width=source.width,
            height=source.height,
            mpp=source.mpp,
            level=view.level,
            downsample=level.downsample,
            scale=view.scale,
            tiles=grid.tiles,
            skipped=grid.skipped,
            memory=memory,
            seconds=seconds,
            device=job["device"],
            precision=job["precision"],
        )


def _seconds_per_tile(predictor: Predictor, grid: TileGrid, view: ScaledView) -> float:
    """Of the slower of reader and model, which work at the same time."""
    begin = time.perf_counter()
    tiles = list(grid.sample(view, MEASURED_TILES))
    reading = time.perf_counter() - begin
    predicting = 0.0
    for _ in range(2):  # TorchScript prepares itself in the first calls
        with predictor.predict_ahead(iter(tiles)) as predicted:
            begin = time.perf_counter()
            for _probabilities in predicted:
                pass
            predicting = time.perf_counter() - begin
    return max(reading, predicting) / max(len(tiles), 1)


def _seconds_per_row(classes: int, width: int) -> float:
    """Of bringing a row of the map to level 0 and choosing its classes."""
    resizer = RowResizer((BAND, max(1, width // 2)), (2 * BAND, width), 2.0)
    noise = np.random.default_rng(0).random((classes, BAND, max(1, width // 2)), np.float32)
    begin = time.perf_counter()
    rows = sum(len(labels_of(band)) for band in resizer.push(noise))
    return (time.perf_counter() - begin) / rows


def _peak_so_far() -> int:
    """Bytes that this process has held: libraries, model, and the tiles that were measured."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _held_bytes(layout: Layout, classes: int, batch_size: int) -> int:
    """Of what the engine holds beside the model: see ``segment``."""
    grid, columns = layout.grid, layout.window[2]
    tile = grid.rows.tile * grid.columns.tile
    width = len(layout.resizer.columns) + 2 * grid.columns.tile
    blended = 3 * 4 * classes * grid.rows.tile * width  # canvas, rows moved up, rows with the last
    level0 = (2 * 4 * classes * BAND + 3 * 2 * _MASK_TILE) * (columns + 2 * _MASK_TILE)
    waiting = 3 * (READ_AHEAD + 2) + (3 + 4 * classes) * (2 * MAX_WORKERS + 2)
    return blended + level0 + waiting * batch_size * tile
