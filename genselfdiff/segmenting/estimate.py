"""What segmenting a slide would take, from a few of its tiles; nothing is written."""

import time
from dataclasses import dataclass, replace
from typing import Unpack

import numpy as np

from genselfdiff.inference.predictor import Predictor
from genselfdiff.inference.resample import BAND, RowResizer, labels_of
from genselfdiff.inference.tile_grid import TileGrid
from genselfdiff.machine import peak_bytes
from genselfdiff.models.model_file import LoadedModel
from genselfdiff.progress import duration
from genselfdiff.segmenting.jobs.job import requested
from genselfdiff.segmenting.memory import memory_bound
from genselfdiff.segmenting.one_slide import choose, predictor_of
from genselfdiff.segmenting.options import OptionArguments, Options
from genselfdiff.segmenting.slide_task import SlideTask
from genselfdiff.slides import ScaledView
from genselfdiff.storage.places import Place, place_of
from genselfdiff.text import counted

MEASURED_TILES = 16
"""Read and predicted to tell the time: two for each worker at most."""


@dataclass(frozen=True)
class SlideEstimate:
    """What ``estimate`` has found.

    ``level`` is the slide's level that is read and ``downsample`` its level-0 pixels per pixel,
    ``scale`` the model's pixel size in level-0 pixels, ``tiles`` those to predict, ``skipped``
    those without tissue, ``memory`` a bound in bytes, ``seconds`` the time from measured tiles.
    """

    slide: Place
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

    def part(self, share: float) -> "SlideEstimate":
        """What a ``share`` of the slide takes, from 0 to 1."""
        return replace(
            self,
            tiles=round(self.tiles * share),
            skipped=round(self.skipped * share),
            seconds=self.seconds * share,
        )

    def summary(self) -> str:
        """A line for people."""
        mpp = "unknown" if self.mpp is None else f"{self.mpp:g}"
        return (
            f"{self.slide}: {self.width} x {self.height} pixels of {mpp} um; level {self.level}"
            f" (downsample {self.downsample:g}), scale {self.scale:g};"
            f" {counted(self.tiles, 'tile')} to predict, {self.skipped} without tissue to skip;"
            f" memory below {self.memory / 2**30:.2f} GiB; about {duration(self.seconds)} on"
            f" {self.device} in {self.precision}"
        )


def estimate(
    slide: str | Place,
    model: Predictor | LoadedModel | str | Place | None = None,
    **options: Unpack[OptionArguments],
) -> SlideEstimate:
    """Tell what ``segment`` would do with the same arguments, and what it would take.

    A few tiles, spread over the tissue, are read and predicted. The time is that of a machine as
    busy as it is now. The memory is that of this process, not of a GPU.

    Raises:
        InputError, ModelError: as ``segment``.
    """
    chosen = Options(**options)
    return estimate_slide(place_of(slide), predictor_of(model, chosen), chosen)


def estimate_slide(path: Place, predictor: Predictor, options: Options) -> SlideEstimate:
    """Do what ``estimate`` does."""
    with options.opened(path) as source:
        task = SlideTask.of(source, predictor, options)
        view, grid, (_, _, columns, rows) = task.layout.view, task.layout.grid, task.layout.window
        job = choose(task, requested(path, predictor, options))
        per_tile = _seconds_per_tile(predictor, grid, view)
        per_row = _seconds_per_row(predictor.model.info.channels, columns)
        # The measured tiles have shown what libraries, model and activations hold.
        memory = peak_bytes() + memory_bound(task, job.batch_size)
        level = source.levels[view.level]
        return SlideEstimate(
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
            seconds=grid.tiles * per_tile + rows * per_row,
            device=job.device,
            precision=job.precision,
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


def _seconds_per_row(channels: int, width: int) -> float:
    """Of bringing a row of the map to level 0 and choosing its classes."""
    resizer = RowResizer((BAND, max(1, width // 2)), (2 * BAND, width), 2.0)
    noise = np.random.default_rng(0).random((channels, BAND, max(1, width // 2)), np.float32)
    begin = time.perf_counter()
    rows = sum(len(labels_of(band)) for band in resizer.push([noise]))
    return (time.perf_counter() - begin) / rows
