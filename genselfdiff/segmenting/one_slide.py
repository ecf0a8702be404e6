"""Segmenting a slide: from its file to a mask file, in memory that its area does not change.

slide -> view at the model's mpp -> tissue -> rows of tiles -> reader threads ahead -> batches ->
model -> blended blocks -> the slide's own resolution -> class of each pixel -> mask pyramid.
"""

import logging
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from genselfdiff.errors import InputError, OutputError
from genselfdiff.files import refuse_inputs
from genselfdiff.inference.predictor import COMPARED_TILES, Predictor, read_ahead
from genselfdiff.inference.resample import is_core, labels_of
from genselfdiff.json_records import as_json
from genselfdiff.masks import MaskWriter, ProbabilityWriter, PyramidShape, PyramidWriter, as_bytes
from genselfdiff.models.model_file import LoadedModel, find_model
from genselfdiff.progress import progress_bar
from genselfdiff.resumable_file import ResumableFile, discard, unfinished
from genselfdiff.segmenting.jobs.job import (
    Job,
    Request,
    content_of,
    requested,
    warn_of_other_machine,
)
from genselfdiff.segmenting.jobs.mask_description import FinishedMask, MaskDescription
from genselfdiff.segmenting.jobs.mask_state import MaskState, Stage, result_of
from genselfdiff.segmenting.memory import READ_AHEAD, keep_within_limit
from genselfdiff.segmenting.options import OptionArguments, Options
from genselfdiff.segmenting.output_files import OutputFiles, refuse_sent_zarr
from genselfdiff.segmenting.result import SegmentResult
from genselfdiff.segmenting.sidecars import refuse_zarr, write_beside, write_zarr
from genselfdiff.segmenting.slide_task import SlideTask
from genselfdiff.storage.places import Place, Url, local_paths, place_of
from genselfdiff.storage.uploading import scratch_of, worked_on_here

logger = logging.getLogger("genselfdiff")

Uint8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]

BATCH_SIZES = {"cpu": 1, "cuda": 8, "mps": 4}


def segment(
    slide: str | Place,
    output: str | Place,
    model: Predictor | LoadedModel | str | Place | None = None,
    *,
    overwrite: bool = False,
    progress: bool | None = None,
    scratch: str | Path | None = None,
    **options: Unpack[OptionArguments],
) -> SegmentResult:
    """Segment ``slide`` into the mask ``output``, a tiled pyramidal TIFF of class indices.

    The mask has the slide's size and pixel size, and its classes' colours as a palette. A run that
    was killed goes on where it was when it is called again with the same arguments, and leaves the
    same files; a mask that is finished is not made again.

    Args:
        slide: see ``open_slide``.
        output: where the mask goes, a .tif or .tiff, or the URL of one; appears whole or not at
            all.
        model: a model, the file of one, or the name of a shipped one; None: the one that GSD_MODEL
            names, else the shipped one. A ``Predictor`` brings its precision and ``tta`` along.
        overwrite: replace files that exist, and what a killed run with other arguments has left.
        progress: show a progress bar on stderr; None: only on a terminal.
        scratch: where a mask by URL grows, see `scratch_of`.
        **options: the fields of ``Options``.

    Raises:
        InputError: the slide cannot be read, is a mask of ours, has no mpp where one is needed, or
            an option is out of range.
        ModelError: there is no model, or it is not one of ours.
        OutputError: a file to write exists, is an input or cannot be written; or another run works
            on it, or was killed when it did so with other arguments.
    """
    chosen = Options(**options)
    predictor = predictor_of(model, chosen)
    chosen = chosen.for_model(predictor.model.info)
    target = place_of(output)
    elsewhere = target.parent if isinstance(target, Url) else None
    here = scratch_of(target, scratch) if isinstance(target, Url) else target
    return segment_to(
        elsewhere, place_of(slide), here, predictor, chosen, overwrite=overwrite, progress=progress
    )


def predictor_of(
    model: Predictor | LoadedModel | str | Place | None, options: Options
) -> Predictor:
    """The predictor of a model on the device and in the precision of ``options``.

    Raises:
        InputError: no such device.
        ModelError: there is no model, or it is not one of ours.
    """
    if isinstance(model, Predictor):
        return model
    return Predictor(find_model(model, options.device), options.precision, options.tta)


def segment_to(
    elsewhere: Url | None,
    path: Place,
    output: Path,
    predictor: Predictor,
    options: Options,
    *,
    overwrite: bool,
    progress: bool | None,
) -> SegmentResult:
    """Do what ``segment_slide`` does, for a mask that is sent to the folder ``elsewhere``."""

    def segmented() -> SegmentResult:
        return segment_slide(
            path, output, predictor, options, overwrite=overwrite, progress=progress
        )

    if elsewhere is None:
        return segmented()
    refuse_sent_zarr(elsewhere, options)
    files = OutputFiles.of(output, options)
    beside = [file for file in files.all()[1:] if file.parent == output.parent]
    if path in [elsewhere / file.name for file in files.all()]:
        raise OutputError(f"{path}: is an input of this run: name another file for the mask")
    result = None
    if not (overwrite or files.all()[1:] or os.path.lexists(output)):
        request = requested(path, predictor, options)
        there = finished_at(elsewhere / output.name, request, options)
        if there is not None:
            result = result_of(path, files, there, finished_before=True)
    if result is None:
        # The mask is sent last: where it is, the others are.
        with worked_on_here(elsewhere, [*beside, output], fetch=not overwrite):
            try:
                result = segmented()
            except OutputError as error:
                raise type(error)(f"{elsewhere / output.name}: {error}") from error
    return replace(result, elsewhere=elsewhere)


def finished_at(mask: Url, request: Request, options: Options) -> FinishedMask | None:
    """What a mask tells of itself that is there already, and is what this run would make."""
    state = MaskState(FinishedMask.read(mask))
    stage = state.stage(request, accept_damaged=options.on_error != "fail")
    return state.mask if stage is Stage.FINISHED else None


def segment_slide(
    path: Place,
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
    tissue = [] if isinstance(options.tissue, bool) else [place_of(options.tissue)]
    refuse_inputs(files.all(), local_paths([path, predictor.model.path, *tissue]))
    files.check()
    request = requested(path, predictor, options)
    state = MaskState.of(files, len(predictor.model.info.classes), overwrite=overwrite)
    accept_damaged = options.on_error != "fail"
    if overwrite and state.has_blanks and not accept_damaged:
        for file in (files.mask, files.probabilities):
            if file is not None:
                discard(file)
        state = replace(state, journal=None, has_blanks=False)
    stage = state.stage(request, accept_damaged=accept_damaged)
    is_there = stage is Stage.FINISHED
    if options.zarr:
        refuse_zarr(
            output, state.mask.job if is_there and state.mask else None, overwrite=overwrite
        )
    share = 1.0
    with options.opened(path) as source:
        if not is_there:
            state.refuse(files, request, accept_damaged=accept_damaged, overwrite=overwrite)
            task = SlideTask.of(source, predictor, options, progress)
            begun = state.begun if stage is Stage.BEGUN else None
            if begun is None:
                job = choose(task, request)
            else:
                warn_of_other_machine(files.mask, request, begun)
                job = begun
                obey(task, job)
            wanted = state.still_wanted(files, job)
            share = predict(task, wanted, task.describe(job), restart=overwrite)
        mask = state.mask if is_there else FinishedMask.read(files.mask)
        assert mask is not None
        result = result_of(path, files, mask, finished_before=is_there)
        seconds = time.perf_counter() - begin
        result = replace(result, blank_tiles=source.blank_tiles, seconds=seconds, share=share)
        objects = write_beside(source, result, options, mask.job, keep=is_there)
        if options.zarr:
            write_zarr(files, mask.job, keep=is_there)
        return replace(result, objects=objects, seconds=time.perf_counter() - begin)


def choose(task: SlideTask, request: Request) -> Job:
    """Choose what ``request`` leaves open, for this slide and within ``max_memory``."""
    predictor, layout = task.predictor, task.layout
    batch_size = request.batch_size or BATCH_SIZES[predictor.model.device.type]
    keep_within_limit(task, batch_size)
    predictor.choose_precision(layout.grid.sample(layout.view, COMPARED_TILES))
    chosen = {
        "precision": predictor.precision,
        "batch_size": batch_size,
        "threads": predictor.threads,
    }
    return Job(**vars(request) | chosen)


def obey(task: SlideTask, job: Job) -> None:
    """Compute as ``job`` has chosen, within ``max_memory``."""
    keep_within_limit(task, job.batch_size)
    task.predictor.obey(job.precision, job.threads)


def predict(
    task: SlideTask, files: OutputFiles, description: MaskDescription, *, restart: bool
) -> float:
    """Predict a slide into the mask and, if it is named, the file of probabilities.

    Returns the share of the rows that were not there yet.

    Args:
        task: what is predicted, and how.
        files: the mask, and what is written with it.
        description: what the mask shall say of itself.
        restart: see ``ResumableFile``.
    """
    source, info = task.source, task.predictor.model.info
    job = as_json(description.job)
    is_begun = False
    shape = PyramidShape(source.width, source.height, source.mpp, task.layout.window)
    try:
        with ExitStack() as stack:
            # The mask is entered first and completed last: where it is, the other is.
            mask = stack.enter_context(
                MaskWriter(
                    ResumableFile(files.mask, job, restart=restart),
                    shape,
                    palette=list(info.colors),
                    class_names=list(info.classes),
                    cores=info.instances,
                    description=as_json(description),
                )
            )
            classes = len(info.classes)
            sinks: list[_Sink] = [(mask, partial(_planes_of_mask, classes))]
            if files.probabilities is not None:
                file = ResumableFile(files.probabilities, job, restart=restart)
                writer = ProbabilityWriter(file, shape, class_names=info.classes, job=job)
                sinks.append((stack.enter_context(writer), lambda block: as_bytes(block[:classes])))
            is_begun = True
            missing = _write(sinks, task, description.job.batch_size)
            if content_of(source.path) != description.job.slide:
                is_begun = False  # of two slides, it is of no use
                raise InputError(
                    f"{source.path}: was changed while it was read: wait until it is written whole,"
                    " and start anew with --overwrite"
                )
    except BaseException:
        if is_begun and unfinished(files.mask) is not None:
            logger.info("%s: what is finished is kept: the same command goes on", files.mask)
        raise
    return missing / task.layout.window[3]


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


def _write(sinks: list[_Sink], task: SlideTask, batch_size: int) -> int:
    """Write the rows that are missing as they become final; return how many they are."""
    source, predictor, layout = task.source, task.predictor, task.layout
    row, height = min(writer.rows_written for writer, _ in sinks), layout.window[3]
    missing = height - row
    if not missing:
        return 0
    rest = layout.rows(row, height) if row else layout
    if row:
        logger.info("%s: goes on at row %d of %d", sinks[0][0].path, row, height)
    bar = progress_bar(
        total=layout.grid.tiles,
        initial=layout.grid.tiles - rest.grid.tiles,
        desc=source.path.name,
        bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} tiles"
        " [{elapsed}, {remaining} left{postfix}]",
        progress=task.progress,
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
    return missing
