"""What is written beside a finished mask: overlay, objects, report."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from genselfdiff.errors import OutputError
from genselfdiff.input_files import is_regular_file
from genselfdiff.json_records import as_json
from genselfdiff.masks import MaskReader, job_of_zarr, write_overlay, write_probability_zarr
from genselfdiff.objects import least_area, write_objects
from genselfdiff.segmenting.jobs.job import Job
from genselfdiff.segmenting.options import Options
from genselfdiff.segmenting.output_files import OutputFiles, zarr_of
from genselfdiff.segmenting.report.page import Report, write_report
from genselfdiff.segmenting.result import SegmentResult
from genselfdiff.segmenting.sidecar_record import (
    ObjectSettings,
    OverlaySettings,
    Settings,
    digest,
    read_record,
    write_record,
)
from genselfdiff.slides import Slide
from genselfdiff.working_files import alone_at

logger = logging.getLogger("genselfdiff")

_WORDS = {
    "model": "Model",
    "icc": "Colours by the slide's ICC profile",
    "tissue": "Predicted only where tissue is",
    "tile size": "Side of a tile, pixels of the model",
    "overlap": "Part of a tile shared with the next",
    "region": "Region: x, y, width, height",
    "tta": "Flips and turns averaged",
    "batch size": "Tiles predicted at once",
    "threads": "Threads of each worker",
    "kernels": "Native kernels",
    "genselfdiff": "gsd",
    "torch": "PyTorch",
}
"""What a report calls the settings of a job; it tells the others elsewhere."""


def write_beside(
    slide: Slide, result: SegmentResult, options: Options, job: Job, *, keep: bool
) -> dict[str, int] | None:
    """Write what ``result.files`` names beside the mask; return the objects of each class.

    Args:
        slide: the slide, open.
        result: what is known of the mask.
        options: what to write, and how.
        job: how the mask was made.
        keep: leave files as they are that were made with the same settings; see `_due`.

    Returns:
        The number of objects of each class but the first; None if nobody needed them.

    Raises:
        OutputError: with ``keep``, a file is there that gsd has not left so; or one cannot be
            written.
    """
    wanted = _wanted(result.files, options, job)
    if not wanted:
        return None
    with alone_at(result.files.mask):
        due, compared = _due(slide, result, options, job, wanted) if keep else (list(wanted), None)
        counts = _write(slide, result.files, result, options, job, due)
        for path in due:
            write_record(path, wanted[path], None if path == result.files.overlay else counts)
    if counts is None:
        counts = compared
    if counts is not None:
        return counts
    records = (read_record(path) for path in wanted if path != result.files.overlay)
    return next((dict(r.objects) for r in records if r is not None and r.objects is not None), None)


def refuse_zarr(mask: Path, job: Job | None, *, overwrite: bool) -> None:
    """Raise OutputError where the OME-Zarr beside a mask is not to be replaced.

    Args:
        mask: the mask.
        job: how it was made, if it is there: a Zarr of the same job is.
        overwrite: replace one of ours.
    """
    folder = zarr_of(mask)
    if not os.path.lexists(folder) or overwrite:
        return
    if job is None or job_of_zarr(folder) != as_json(job):
        raise OutputError(
            f"{folder}: exists already, and was made otherwise than this run would make it: move"
            " or delete it, or use --overwrite"
        )


def write_zarr(files: OutputFiles, job: Job, *, keep: bool) -> None:
    """Write the OME-Zarr beside a finished mask; with ``keep`` one of the same job stays."""
    folder = zarr_of(files.mask)
    if keep and job_of_zarr(folder) == as_json(job):
        return
    assert files.probabilities is not None
    with alone_at(files.mask), MaskReader(files.mask) as mask:
        write_probability_zarr(files.probabilities, folder, mask.palette[: len(mask.class_names)])


def made_otherwise(files: OutputFiles, options: Options, job: Job) -> list[Path]:
    """Which files beside a finished mask are not there, or tell that they have other settings.

    Args:
        files: the mask, and what is wanted beside it.
        options: how that is wanted.
        job: how the mask was made.
    """
    wanted = _wanted(files, options, job)
    records = {path: read_record(path) for path in wanted}
    others = [
        path
        for path, record in records.items()
        if not os.path.lexists(path) or (record is not None and not record.has(wanted[path]))
    ]
    folder = zarr_of(files.mask)
    return [*others, folder] if options.zarr and job_of_zarr(folder) != as_json(job) else others


def _due(
    slide: Slide,
    result: SegmentResult,
    options: Options,
    job: Job,
    wanted: dict[Path, Settings],
) -> tuple[list[Path], dict[str, int] | None]:
    """Which of the wanted files have to be made, and the objects, if they were counted for that.

    Those are not that were made with the same settings. One that was made with others is made
    again, if nobody has changed it since.
    """
    due, unknown = [], []
    for path, settings in wanted.items():
        record = read_record(path)
        if not os.path.lexists(path):
            due.append(path)
        elif record is None:
            unknown.append(path)
        elif record.has(settings):
            logger.info("%s: is kept: it was made with the same settings", path)
        elif record.is_unchanged(path):
            logger.info("%s: is made again: it was made with other settings", path)
            due.append(path)
        else:
            raise _other(path)
    counts = None
    if unknown:
        files = {path: wanted[path] for path in unknown}
        counts = _compare(slide, result, options, job, files)
    return due, counts


def _compare(
    slide: Slide,
    result: SegmentResult,
    options: Options,
    job: Job,
    wanted: Mapping[Path, Settings],
) -> dict[str, int] | None:
    """Make files that tell nothing once more elsewhere, and raise unless they are the same.

    A copy of a mask and its files goes on so, and a file system that keeps no attributes. Returns
    the objects, if they were counted.
    """
    with TemporaryDirectory(prefix="gsd-") as folder:
        files = result.files
        moved = {path: Path(folder, path.name) for path in wanted}
        copies = OutputFiles(files.mask, *(moved.get(path) if path else None for path in files[1:]))
        counts = _write(slide, copies, result, options, job, list(moved.values()))
        for path, copy in moved.items():
            if not is_regular_file(path) or digest(path) != digest(copy):
                raise _other(path)
            logger.info("%s: is kept: it is what this run would write", path)
            write_record(path, wanted[path], None if path == files.overlay else counts)
    return counts


def _other(path: Path) -> OutputError:
    return OutputError(
        f"{path}: exists already, and was changed or made otherwise than this run would make it:"
        " move or delete it to have it made again"
    )


def _wanted(files: OutputFiles, options: Options, job: Job) -> dict[Path, Settings]:
    """The files to write, and for each the settings that decide what is in it."""
    objects = _object_settings(options, job)
    settings: dict[Path | None, Settings] = {
        files.overlay: OverlaySettings(objects.mask, options.overlay_width, options.outline),
        files.geojson: objects,
        files.table: objects,
        files.labels: objects,
        files.report: objects,
    }
    return {path: of for path, of in settings.items() if path is not None}


def _object_settings(options: Options, job: Job) -> ObjectSettings:
    content = json.dumps(as_json(job), sort_keys=True).encode()
    return ObjectSettings(
        mask=hashlib.sha256(content).hexdigest()[:16],
        instances=options.instances,
        seed_distance=options.seed_distance if options.instances else None,
        min_area=options.min_area,
    )


def _write(
    slide: Slide,
    files: OutputFiles,
    result: SegmentResult,
    options: Options,
    job: Job,
    due: list[Path],
) -> dict[str, int] | None:
    """Write those of ``files`` that are due; return the objects, if they were counted."""
    overlay, geojson, table, labels, report = (
        path if path in due else None
        for path in (files.overlay, files.geojson, files.table, files.labels, files.report)
    )
    with MaskReader(files.mask) as reader:
        palette, mpp = reader.palette, reader.mpp
    if overlay is not None:
        write_overlay(slide, files.mask, overlay, options.overlay_width, outline=options.outline)
    if not any((geojson, table, labels, report)):
        return None
    found = write_objects(
        files.mask,
        geojson=geojson,
        table=table,
        labels=labels,
        instances=options.instances,
        seed_distance=options.seed_distance,
        min_area=options.min_area,
        overwrite=True,
    )
    if report is not None:
        shown = _shown_settings(options, job, found.cuts, mpp)
        made_with = _object_settings(options, job)
        write_report(report, slide, Report(result, palette, found.sizes, shown, made_with))
    return found.counts


def _shown_settings(
    options: Options, job: Job, cuts: str | None, mpp: float | None
) -> dict[str, str]:
    """What a report says of how the mask and its objects came about."""
    content = as_json(job)
    shown = {
        words: _value_in_words(content[name])
        for name, words in _WORDS.items()
        if content.get(name) is not None
    }
    shown["Touching objects"] = "not taken apart" if cuts is None else f"taken apart {cuts}"
    least = least_area(options.min_area, mpp, apart=cuts is not None)
    shown["Smallest object, px" if mpp is None else "Smallest object, \u00b5m\u00b2"] = f"{least:g}"
    return shown


def _value_in_words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
