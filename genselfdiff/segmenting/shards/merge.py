"""The mask of a slide from the parts that several processes have left of it, see ``shards``."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genselfdiff.errors import InputError, one_line
from genselfdiff.files import refuse_inputs
from genselfdiff.json_records import as_json
from genselfdiff.masks import MaskReader, MaskWriter, ProbabilityWriter, PyramidShape, is_own_mask
from genselfdiff.segmenting.jobs.job import Job, content_of
from genselfdiff.segmenting.jobs.mask_description import FinishedMask
from genselfdiff.segmenting.jobs.mask_state import MaskState, Stage, result_of
from genselfdiff.segmenting.options import Options
from genselfdiff.segmenting.output_files import MASK_SUFFIXES, OutputFiles
from genselfdiff.segmenting.report.summary_csv import SummaryTable
from genselfdiff.segmenting.result import SegmentResult
from genselfdiff.segmenting.shards.folder import (
    FOLDER_SUFFIX,
    JOB_NAME,
    SharedJob,
    folder_of,
    missing_parts,
    part_files,
    read_job,
    remove_parts,
    require_own_folder,
)
from genselfdiff.segmenting.sidecars import write_beside
from genselfdiff.slides import is_folder_of_slides, open_slide
from genselfdiff.storage.places import Place, local_paths, place_of

logger = logging.getLogger("genselfdiff")

Uint8 = NDArray[np.uint8]


def find_shared(paths: Sequence[Path]) -> list[Path]:
    """Masks to merge: those named, and in folders all whose parts lie there.

    Where masks are whole there is nothing to merge: of what is named, and in folders of such.

    Raises:
        InputError: a folder holds neither masks nor parts of them.
    """
    masks: list[Path] = []
    for path in paths:
        if path.is_dir() and not path.name.endswith(FOLDER_SUFFIX):
            found = sorted(path.glob(f"*{FOLDER_SUFFIX}/{JOB_NAME}"))
            if not (found or any(map(_is_whole, path.iterdir()))):
                raise InputError(
                    f"{path}: neither masks nor parts of them in it: name the folder that was given"
                    " to gsd segment --shard"
                )
            masks += [_mask_of(job.parent) for job in found]
        else:
            mask = _mask_of(path)
            if folder_of(mask).is_dir() or not _is_whole(mask):
                masks.append(mask)
    return masks


def _is_whole(path: Path) -> bool:
    return path.suffix.lower() in MASK_SUFFIXES and is_own_mask(path)


def merge_parts(mask: Path) -> SegmentResult:
    """Make a mask, and what is wanted beside it, of the parts that shards have left.

    Shards that worked into a folder of masks get the slide its row in the folder's summary.

    Raises:
        InputError: parts are missing or damaged, or the folder has a summary of somebody else.
        OutputError: a file cannot be written.
    """
    folder = folder_of(mask)
    if not folder.is_dir():
        raise InputError(f"{mask}: no parts of it in {folder}: gsd segment --shard leaves them")
    require_own_folder(folder)
    shared = read_job(folder)
    options, slide = shared.options_at(mask), place_of(shared.slide)
    files = OutputFiles.of(mask, options)
    files.check()
    refuse_inputs(files.all(), local_paths([slide, folder / JOB_NAME]))
    summary = None if shared.listed is None else SummaryTable(mask.parent)
    begin = time.perf_counter()
    state = MaskState.of(files, shared.classes)
    finished = state.mask
    if state.stage(shared.job) is not Stage.FINISHED:
        missing = missing_parts(folder, shared, options)
        if missing:
            names = ", ".join(f"{index}/{shared.shards}" for index in missing)
            raise InputError(f"{mask}: not finished yet: run gsd segment with --shard {names}")
        files.refuse_existing(but_probabilities=state.has_probabilities(shared.job))
        _join(state.still_wanted(files, shared.job), options, shared)
        finished = FinishedMask.read(mask)
    assert finished is not None
    result = result_of(slide, files, finished, finished_before=True)
    if any((files.overlay, files.geojson, files.table, files.labels, files.report)):
        if not _is_there(slide, shared.job):
            raise InputError(
                f"{slide}: is not there, or another slide by now, but what is beside {mask} is"
                f" drawn from it: put it back and repeat gsd merge {mask}"
            )
        with open_slide(slide, mpp=options.mpp, on_error=options.on_error) as source:
            objects = write_beside(source, result, options, finished.job, keep=True)
        result = replace(result, objects=objects)
    if summary is not None and shared.listed is not None:
        result = replace(result, seconds=time.perf_counter() - begin)
        summary.add(place_of(shared.listed), result, None)
    _remove(folder)
    return result


def _mask_of(folder: Path) -> Path:
    return folder.with_name(folder.name.removesuffix(FOLDER_SUFFIX))


def _is_there(slide: Place, job: Job) -> bool:
    """Whether ``slide``, which somebody else has named, is what the job tells of its content."""
    if slide.name != job.slide.rpartition(" ")[0] or is_folder_of_slides(slide):
        return False
    if isinstance(slide, Path) and not slide.exists():
        return False
    return content_of(slide) == job.slide


def _remove(folder: Path) -> None:
    """Remove what was merged."""
    try:
        others = remove_parts(folder)
    except FileNotFoundError:
        logger.debug("%s: another merge was first", folder)
    except OSError as error:
        logger.warning("%s: is merged, but cannot be removed: %s", folder, one_line(error))
    else:
        if others:
            logger.warning("%s: stays, for what is not of gsd: %s", folder, ", ".join(others))


def _join(files: OutputFiles, options: Options, shared: SharedJob) -> None:
    """Write the mask, and the probabilities if there are any, from the parts, in their order."""
    folder = folder_of(files.mask)
    order = sorted(shared.parts, key=lambda index: shared.parts[index])
    parts = [part_files(folder, index, options) for index in order]
    rows = [shared.parts[index] for index in order]
    with MaskReader(parts[0].mask) as reader:
        size, has_cores = (reader.width, reader.height), reader.has_cores
        x, y, width, height = shared.job.region or (0, 0, *size)
        mpp, names = reader.mpp, reader.class_names
        palette = reader.palette[: len(names)]
    try:
        shape = PyramidShape(*size, mpp, window=(x, y, width, height))
    except ValueError as error:
        raise _unfit(files) from error
    if not len(names) == len(palette) == shared.classes or rows[-1][1] != height:
        raise _unfit(files)

    def bands(parts: Sequence[Path | None], planes: int, *, cores: bool = False) -> Iterator[Uint8]:
        for (first, last), part in zip(rows, parts, strict=True):
            assert part is not None
            with MaskReader(part, planes) as reader:
                if (reader.width, reader.height) != size or reader.has_cores != cores:
                    raise _unfit(files)
                for band in reader.stacks(y + first, y + last, cores=cores):
                    yield band[:, :, x : x + width]

    if files.probabilities is not None:
        with ProbabilityWriter(
            files.probabilities, shape, class_names=names, job=as_json(shared.job)
        ) as probabilities:
            for band in bands([part.probabilities for part in parts], len(names)):
                probabilities.push(band)
    with MaskWriter(
        files.mask,
        shape,
        palette=palette,
        class_names=names,
        cores=has_cores,
        description=as_json(shared.description),
    ) as writer:
        writer.from_damaged = any(map(_is_from_damaged, parts))
        for band in bands([part.mask for part in parts], 1, cores=has_cores):
            writer.push(band)


def _unfit(files: OutputFiles) -> InputError:
    folder = folder_of(files.mask)
    return InputError(f"{folder}: its parts do not fit its {JOB_NAME}: delete it and start anew")


def _is_from_damaged(part: OutputFiles) -> bool:
    with MaskReader(part.mask) as reader:
        return bool(reader.description.get("from_damaged"))
