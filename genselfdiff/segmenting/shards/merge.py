"""The mask of a slide from the parts that several processes have left of it, see ``shards``."""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
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
from genselfdiff.segmenting.sidecars import refuse_zarr, write_beside, write_zarr
from genselfdiff.slides import is_folder_of_slides
from genselfdiff.storage.filesystems import NotThere
from genselfdiff.storage.listing import is_folder, urls_below
from genselfdiff.storage.places import Place, Url, local_paths, place_of
from genselfdiff.storage.uploading import scratch_of, worked_on_here

logger = logging.getLogger("genselfdiff")

Uint8 = NDArray[np.uint8]


def find_shared(places: Sequence[Place], scratch: Path | None = None) -> dict[Path, Url | None]:
    """Masks to merge: those named, and in folders all whose parts lie there.

    Where masks are whole there is nothing to merge: of what is named, and in folders of such.

    Args:
        places: masks, folders, or URLs of such, whose parts lie below ``scratch``.
        scratch: see `scratch_of`.

    Returns:
        For each mask the folder that it is to be sent to; None: it stays where it is.

    Raises:
        InputError: a folder holds neither masks nor parts of them.
    """
    masks: dict[Path, Url | None] = {}
    for place in places:
        named = place.name.endswith(FOLDER_SUFFIX)
        is_one = named or not (is_folder(place) if isinstance(place, Url) else place.is_dir())
        folder = None if isinstance(place, Path) else place.parent if is_one else place
        found = [_parts_of(place, scratch)] if is_one else _parts_in(place, scratch)
        for parts in found:
            mask = parts.with_name(parts.name.removesuffix(FOLDER_SUFFIX))
            if parts.is_dir() or not is_own_mask(mask if folder is None else folder / mask.name):
                masks[mask] = folder
        if not (found or any(map(is_own_mask, _files_in(place)))):
            raise InputError(
                f"{place}: neither masks nor parts of them in it: name the folder that was given to"
                " gsd segment --shard"
            )
    return masks


def _parts_of(place: Place, scratch: Path | None) -> Path:
    """The folder of parts of a mask, which is named itself, or that folder."""
    name = place.name.removesuffix(FOLDER_SUFFIX)
    if isinstance(place, Path):
        return folder_of(place.with_name(name))
    # A run into one mask and one into a folder of masks have it in different places.
    in_folder = folder_of(scratch_of(place.parent, scratch) / name)
    return in_folder if in_folder.is_dir() else folder_of(scratch_of(place.parent / name, scratch))


def _parts_in(place: Place, scratch: Path | None) -> list[Path]:
    """The folders of parts in a folder of masks."""
    here = scratch_of(place, scratch) if isinstance(place, Url) else place
    return [job.parent for job in sorted(here.glob(f"*{FOLDER_SUFFIX}/{JOB_NAME}"))]


def _files_in(folder: Place) -> Iterable[Place]:
    if isinstance(folder, Path):
        return folder.iterdir()
    try:
        return urls_below(folder, MASK_SUFFIXES, ())
    except NotThere:
        return ()


def merge_parts(mask: Path, elsewhere: Url | None = None) -> SegmentResult:
    """Make a mask, and what is wanted beside it, of the parts that shards have left.

    Shards that worked into a folder of masks get the slide its row in the folder's summary.

    Args:
        mask: beside its parts.
        elsewhere: the folder that it is sent to; None: it stays.

    Raises:
        InputError: parts are missing or damaged, or the folder has a summary of somebody else.
        OutputError: a file cannot be written or sent.
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
    summary = None if shared.listed is None else SummaryTable(mask.parent, elsewhere)
    begin = time.perf_counter()
    with ExitStack() as stack:
        if elsewhere is not None:
            # The mask is sent last: where it is, the others are.
            stack.enter_context(worked_on_here(elsewhere, [*files.all()[1:], mask], fetch=True))
        result = _merged(
            files, options, shared, mask if elsewhere is None else elsewhere / mask.name
        )
    result = replace(result, elsewhere=elsewhere)
    if summary is not None and shared.listed is not None:
        result = replace(result, seconds=time.perf_counter() - begin)
        summary.add(place_of(shared.listed), result, None)
    _remove(folder)
    return result


def _merged(files: OutputFiles, options: Options, shared: SharedJob, named: Place) -> SegmentResult:
    """Write what is not there of a mask, which users know as ``named``, and what lies beside it."""
    mask, slide = files.mask, place_of(shared.slide)
    state = MaskState.of(files, shared.classes)
    finished = state.mask
    if state.stage(shared.job) is not Stage.FINISHED:
        missing = missing_parts(folder_of(mask), shared, options)
        if missing:
            names = ", ".join(f"{index}/{shared.shards}" for index in missing)
            raise InputError(f"{named}: not finished yet: run gsd segment with --shard {names}")
        files.refuse_existing(but_probabilities=state.has_probabilities(shared.job))
        _join(state.still_wanted(files, shared.job), options, shared)
        finished = FinishedMask.read(mask)
    assert finished is not None
    result = result_of(slide, files, finished, finished_before=True)
    if any((files.overlay, files.geojson, files.table, files.labels, files.report)):
        if not _is_there(slide, shared.job):
            raise InputError(
                f"{slide}: is not there, or another slide by now, but what is beside {named}"
                f" is drawn from it: put it back and repeat gsd merge {named}"
            )
        with options.opened(slide) as source:
            objects = write_beside(source, result, options, finished.job, keep=True)
        result = replace(result, objects=objects)
    if options.zarr:
        refuse_zarr(files.mask, finished.job, overwrite=False)
        write_zarr(files, finished.job, keep=True)
    return result


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
