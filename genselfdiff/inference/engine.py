"""Segmenting a slide: from its file to a mask file, in memory that its area does not change.

slide -> view at the model's mpp -> tissue -> rows of tiles -> reader threads ahead -> batches ->
model -> blended blocks -> the slide's own resolution -> class of each pixel -> mask pyramid.
"""

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genselfdiff.errors import InputError
from genselfdiff.files import refuse_inputs
from genselfdiff.inference.beside import write_beside
from genselfdiff.inference.job import MACHINE, Job, content_of, is_same_work, requested
from genselfdiff.inference.layout import Layout, lay_out
from genselfdiff.inference.mask_state import (
    begun_job,
    finished,
    is_asked_for,
    made_by,
    refuse_other,
    result_of,
)
from genselfdiff.inference.memory import READ_AHEAD, keep_within_limit
from genselfdiff.inference.model_file import LoadedModel, find_model
from genselfdiff.inference.options import Options
from genselfdiff.inference.output_files import OutputFiles
from genselfdiff.inference.predictor import COMPARED_TILES, Predictor, read_ahead
from genselfdiff.inference.resample import is_core, labels_of
from genselfdiff.inference.segment_result import SegmentResult
from genselfdiff.masks import MaskWriter, ProbabilityWriter, PyramidWriter, as_bytes
from genselfdiff.progress import progress_bar
from genselfdiff.resumable_file import unfinished
from genselfdiff.slides import Slide, open_slide

logger = logging.getLogger("genselfdiff")

Uint8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]

BATCH_SIZES = {"cpu": 1, "cuda": 8, "mps": 4}


def segment(
    slide: str | Path,
    output: str | Path,
    model: Predictor | LoadedModel | str | Path | None = None,
    *,
    device: str | None = None,
    precision: str = "auto",
    tta: int = 1,
    overwrite: bool = False,
    progress: bool | None = None,
    **options: Any,
) -> SegmentResult:
    """Segment ``slide`` into the mask ``output``, a tiled pyramidal TIFF of class indices.

    The mask has the slide's size and pixel size, and its classes' colours as a palette. A run that
    was killed goes on where it was when it is called again with the same arguments, and leaves the
    same files; a mask that is finished is not made again.

    Args:
        slide: see ``open_slide``.
        output: where the mask goes, a .tif or .tiff; appears whole or not at all.
        model: a model, the file of one, or the name of a shipped one; None: the one that GSD_MODEL
            names, else the shipped one. A ``Predictor`` brings its precision and ``tta`` along.
        device: "cpu", "cuda", "cuda:1", "mps", or several GPUs, "cuda:0,cuda:1"; None: the best
            there is. A model that is already loaded stays on its device.
        precision: "auto", "float32" or "bfloat16"; see ``Predictor``.
        tta: mean of 2, 4 or 8 flips and turns of each tile, at as many times the cost; 1: none.
        overwrite: replace files that exist, and what a killed run with other arguments has left.
        progress: show a progress bar on stderr; None: only on a terminal.
        **options: the fields of ``Options``.

    Raises:
        InputError: the slide cannot be read, is a mask of ours, has no mpp where one is needed, or
            an option is out of range.
        ModelError: there is no model, or it is not one of ours.
        OutputError: a file to write exists, is an input or cannot be written; or another run works
            on it, or was killed when it did so with other arguments.
    """
    chosen = Options(**options)
    predictor = (
        model
        if isinstance(model, Predictor)
        else Predictor(find_model(model, device), precision, tta)
    )
    chosen = chosen.for_model(predictor.model.info)
    return segment_slide(
        Path(slide), Path(output), predictor, chosen, overwrite=overwrite, progress=progress
    )


def segment_slide(
    path: Path,
    output: Path,
    predictor: Predictor,
    options: Options,
    *,
    overwrite: bool,
    progress: bool | None,
) -> SegmentResult:
    """Do what ``segment`` does."""
    begin = time.perf_counter()
    files = OutputFiles.of(output, options)
    given = [] if isinstance(options.tissue, bool) else [Path(options.tissue)]
    refuse_inputs(files.all(), [path, predictor.model.path, *given])
    files.check()
    request = requested(path, predictor, options)
    done = None if overwrite else finished(files)
    before = done is not None and is_asked_for(done, request, options.on_error)
    with open_slide(path, mpp=options.mpp, on_error=options.on_error) as source:
        if done is None or not before:
            refuse_other(files.mask, done, request)
            done = make_mask(source, files, predictor, options, request, overwrite, progress)
        result = result_of(path, files, done, finished_before=before)
        seconds = time.perf_counter() - begin
        result = replace(result, blank_tiles=source.blank_tiles, seconds=seconds)
        objects = write_beside(source, result, options, done["job"], keep=before)
        return replace(result, objects=objects, seconds=time.perf_counter() - begin)


def make_mask(
    source: Slide,
    files: OutputFiles,
    predictor: Predictor,
    options: Options,
    request: Job,
    overwrite: bool,
    progress: bool | None,
) -> dict[str, Any]:
    """Predict a slide into its mask, or what a killed run has left to do; return what it tells."""
    # A run that ended early may have made the probabilities, and nothing of the mask.
    beside = made_by(files.probabilities, len(predictor.model.info.classes))
    begun = begun_job(files.mask) or (None if overwrite else beside)
    goes_on = begun is not None and is_same_work(begun, request)
    ours = beside is not None and is_same_work(beside, request)
    files.refuse_existing(overwrite=overwrite, but_probabilities=goes_on and ours)
    layout = lay_out(source, predictor.model.info, options, progress)
    if begun is not None and goes_on:
        keep_within_limit(options, source, layout, predictor, begun["batch size"])
        predictor.obey(begun["precision"], begun["threads"])
        job = begun | {key: request[key] for key in MACHINE}
    else:
        job = choose(request, source, predictor, layout, options)
    told = describe(layout, job)
    predict(source, layout, predictor, files, told, job, restart=overwrite, progress=progress)
    done = finished(files)
    assert done is not None
    return done


def choose(
    request: Job, source: Slide, predictor: Predictor, layout: Layout, options: Options
) -> Job:
    """Choose what ``request`` leaves open, for this slide and within ``max_memory``."""
    batch_size = request["batch size"] or BATCH_SIZES[predictor.model.device.type]
    keep_within_limit(options, source, layout, predictor, batch_size)
    predictor.choose_precision(layout.grid.sample(layout.view, COMPARED_TILES))
    return request | {
        "precision": predictor.precision,
        "threads": predictor.threads,
        "batch size": batch_size,
    }


def describe(layout: Layout, job: Job) -> dict[str, Any]:
    """What a mask tells of how it was made."""
    tiles, skipped = layout.grid.tiles, layout.grid.skipped
    return {"tiles": tiles, "skipped": skipped, "scale": layout.scale, "job": job}


def predict(
    source: Slide,
    layout: Layout,
    predictor: Predictor,
    files: OutputFiles,
    told: dict[str, Any],
    purpose: dict[str, Any],
    *,
    restart: bool,
    progress: bool | None,
) -> None:
    """Predict what ``layout`` shows into the mask and, if it is named, the file of probabilities.

    Args:
        told: what the mask's description shall say.
        purpose, restart: see ``PyramidWriter``.
    """
    info = predictor.model.info
    is_begun = False
    shape: dict[str, Any] = {
        "width": source.width,
        "height": source.height,
        "mpp": source.mpp,
        "window": layout.window,
        "purpose": purpose,
        "restart": restart,
    }
    try:
        with ExitStack() as stack:
            # The mask is entered first and completed last: where it is, the other is.
            mask = stack.enter_context(
                MaskWriter(
                    files.mask,
                    palette=list(info.colors),
                    class_names=list(info.classes),
                    cores=info.instances,
                    description=told,
                    **shape,
                )
            )
            classes = len(info.classes)
            sinks: list[_Sink] = [(mask, partial(_planes_of_mask, classes))]
            there = None if restart else made_by(files.probabilities, classes)
            if files.probabilities is not None and there != told["job"]:
                writer = ProbabilityWriter(
                    files.probabilities, class_names=info.classes, job=told["job"], **shape
                )
                sinks.append((stack.enter_context(writer), lambda block: as_bytes(block[:classes])))
            is_begun = True
            _write(sinks, source, layout, predictor, purpose["batch size"], progress)
            if content_of(source.path) != told["job"]["slide"]:
                is_begun = False  # of two slides, it is of no use
                raise InputError(
                    f"{source.path}: was changed while it was read: wait until it is written whole,"
                    " and start anew with --overwrite"
                )
    except BaseException:
        if is_begun and unfinished(files.mask) is not None:
            logger.info("%s: what is finished is kept: the same command goes on", files.mask)
        raise


_Sink = tuple[PyramidWriter, Callable[[Float32], Uint8]]
"""A file, and what of it (channels, rows, width) probabilities make: (planes, rows, width)."""


def _planes_of_mask(classes: int, probabilities: Float32) -> Uint8:
    """Classes and, of a model that tells them, the cores of objects within these."""
    labels = labels_of(probabilities[:classes])
    if len(probabilities) == classes:
        return labels[None]
    cores = is_core(probabilities[classes]) & (labels != 0)
    return np.stack((labels, cores.view(np.uint8)))


class _Band:
    """The rows of a file that become final with a row of tiles."""

    def __init__(
        self, writer: PyramidWriter, width: int, encode: Callable[[Float32], Uint8]
    ) -> None:
        self._writer, self._width, self._encode = writer, width, encode
        self._rows: Uint8 | None = None
        self._filled = 0
        self.height = 0

    def add(self, block: Float32) -> None:
        """Take the next columns."""
        planes = self._encode(block)
        if self._rows is None:
            self.height = planes.shape[1]
            self._rows = np.empty((len(planes), self.height, self._width), np.uint8)
        self._rows[:, :, self._filled :][:, :, : planes.shape[2]] = planes
        self._filled += planes.shape[2]

    def write(self, row: int) -> None:
        """Write what the file lacks of these rows, which begin with ``row``."""
        # One file may have got further than the other before the run was killed.
        ahead = max(self._writer.rows_written - row, 0)
        if self._rows is not None and ahead < self.height:
            self._writer.push(self._rows[:, ahead:])


def _write(
    sinks: list[_Sink],
    source: Slide,
    layout: Layout,
    predictor: Predictor,
    batch_size: int,
    progress: bool | None,
) -> None:
    """Write the rows that are missing as they become final."""
    row, height = min(writer.rows_written for writer, _ in sinks), layout.window[3]
    if row == height:
        return
    rest = layout.rows(row, height) if row else layout
    if row:
        logger.info("%s: goes on at row %d of %d", sinks[0][0].path, row, height)
    bar = progress_bar(
        total=layout.grid.tiles,
        initial=layout.grid.tiles - rest.grid.tiles,
        desc=source.path.name,
        bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} tiles"
        " [{elapsed}, {remaining} left{postfix}]",
        progress=progress,
    )
    begin, pixels = time.perf_counter(), 0
    with (
        bar,
        read_ahead(rest.grid.batches(rest.view, batch_size), READ_AHEAD) as batches,
        predictor.predict_ahead(batches) as predicted,
    ):
        for blocks in rest.grid.blend(predicted, predictor.model.info.channels, bar):
            bands = [_Band(writer, layout.window[2], encode) for writer, encode in sinks]
            for block in rest.resizer.push(blocks):
                for band in bands:
                    band.add(block)
            for writer, _ in sinks:
                writer.from_damaged |= source.blank_tiles > 0
            for band in bands:
                band.write(row)
            row += bands[0].height
            pixels += bands[0].height * layout.window[2]
            speed = pixels / 1e6 / (time.perf_counter() - begin)
            bar.set_postfix_str(f"{speed:.1f} Mpx/s", refresh=False)
