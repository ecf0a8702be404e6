"""What a mask that is there, or was begun, tells of how it was made."""

from pathlib import Path
from typing import Any

from genselfdiff.errors import InputError, OutputError
from genselfdiff.inference.job import Job, filled_in, is_job, is_same_work
from genselfdiff.inference.output_files import OutputFiles
from genselfdiff.inference.segment_result import SegmentResult
from genselfdiff.masks import MaskReader
from genselfdiff.resumable_file import differences, unfinished

Description = dict[str, Any]
"""What a mask tells of itself, as JSON has it."""

_MOST = 2**53
"""No number that a mask tells is larger."""


def finished(files: OutputFiles) -> Description | None:
    """What a mask that is there tells of how it was made; None: it is not, or tells nothing.

    Neither counts a mask whose probabilities are wanted, but missing or of another job.
    """
    told = _told(files.mask)
    if told is None or files.probabilities is None:
        return told
    return told if made_by(files.probabilities, len(told["classes"])) == told["job"] else None


def made_by(path: Path | None, planes: int) -> Job | None:
    """The job that made a file of probabilities; None: it is not there, or does not tell."""
    if path is None:
        return None
    try:
        with MaskReader(path, planes) as reader:
            job = reader.description.get("job")
    except InputError:
        return None
    return job if is_job(job) else None


def begun_job(mask: Path) -> Job | None:
    """The job of a mask that a run has begun and not finished."""
    job = unfinished(mask)
    return job if is_job(job) else None


def is_asked_for(done: Description, request: Job, on_error: str) -> bool:
    """Whether a finished mask is what a run asks for.

    One with blank in place of damaged tiles is not, for a run that would end at such a tile.
    """
    return is_same_work(done["job"], request) and not (done["from_damaged"] and on_error == "fail")


def refuse_other(mask: Path, done: Description | None, request: Job) -> None:
    """Raise OutputError that tells what a finished mask was made with, instead of what is asked."""
    if done is None:
        return
    job = done["job"]
    wanted = filled_in(request, job)
    other = differences({key: job.get(key) for key in wanted}, wanted) or (
        "damaged tiles taken for glass instead of an error (--on-error)"
    )
    raise OutputError(
        f"{mask}: exists already, and was made with {other}: name another file, or use --overwrite"
    )


def result_of(
    path: Path, files: OutputFiles, done: Description, *, finished_before: bool
) -> SegmentResult:
    """The result that a mask tells of itself, without time, objects and damaged tiles."""
    with MaskReader(files.mask) as reader:
        width, height, mpp = reader.width, reader.height, reader.mpp
    return SegmentResult(
        slide=path,
        files=files,
        width=width,
        height=height,
        mpp=mpp,
        scale=done["scale"],
        tiles=done["tiles"],
        skipped=done["skipped"],
        seconds=0.0,
        device=done["job"]["device"],
        precision=done["job"]["precision"],
        pixels=dict(zip(done["classes"], done["pixels"], strict=True)),
        objects=None,
        finished_before=finished_before,
        blank_tiles=0,
    )


def _told(mask: Path) -> Description | None:
    try:
        with MaskReader(mask) as reader:
            told = {"from_damaged": False} | reader.description
            area = reader.width * reader.height
    except InputError:
        return None
    return told if _is_description(told, area) else None


def _is_description(told: Description, area: int) -> bool:
    """Whether a mask of ``area`` pixels tells what `predict` makes it tell; it can be any file."""
    classes, pixels = told.get("classes"), told.get("pixels")
    return (
        is_job(told.get("job"))
        and isinstance(told.get("scale"), int | float)
        and 0 < told["scale"] < _MOST
        and all(_is_count(told.get(name), _MOST) for name in ("tiles", "skipped"))
        and isinstance(told["from_damaged"], int)
        and isinstance(classes, list)
        and isinstance(pixels, list)
        and len(classes) == len(pixels)
        and all(isinstance(name, str) for name in classes)
        and len(classes) == len(set(classes))
        and all(_is_count(count, area) for count in pixels)
        and sum(pixels) <= area
    )


def _is_count(value: object, most: int) -> bool:
    return isinstance(value, int) and 0 <= value <= most
