"""What is written beside a finished mask: overlay, objects, report."""

import logging
from pathlib import Path
from typing import Any

from genselfdiff.inference.options import Options
from genselfdiff.inference.report import write_report
from genselfdiff.inference.segment_result import SegmentResult
from genselfdiff.slides import MaskReader, Slide, write_objects, write_overlay

logger = logging.getLogger("genselfdiff")

_UNTOLD = ("slide", "mpp", "device", "precision")
"""Settings of a job that a report tells elsewhere."""


def write_beside(
    slide: Slide,
    result: SegmentResult,
    options: Options,
    job: dict[str, Any],
    *,
    keep: bool,
) -> dict[str, int] | None:
    """Write what ``result.files`` names beside the mask; return the objects of each class.

    Args:
        slide: the slide, open.
        result: what is known of the mask.
        options: what to write, and how.
        job: how the mask was made, for the report.
        keep: leave files as they are that are there, instead of replacing them.

    Returns:
        The number of objects of each class but the first; None if nobody needed them.
    """
    files = result.files

    def due(path: Path | None) -> Path | None:
        if path is None or not (keep and path.exists()):
            return path
        logger.info("%s: is kept as it is; delete it to have it made again", path)
        return None

    overlay, geojson, table, labels, report = map(
        due, (files.overlay, files.geojson, files.table, files.labels, files.report)
    )
    if overlay is not None:
        with MaskReader(files.mask) as reader:
            write_overlay(slide, files.mask, overlay, reader.palette, options.overlay_width)
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
        with MaskReader(files.mask) as reader:
            palette = reader.palette
        write_report(
            report,
            result,
            slide,
            palette,
            sizes=found.sizes,
            settings=_settings(options, job),
            overwrite=True,
        )
    return found.counts


def _settings(options: Options, job: dict[str, Any]) -> dict[str, object]:
    """What a report tells of how the mask and its objects came about."""
    told = {name: value for name, value in job.items() if name not in _UNTOLD and value is not None}
    told["instances"] = "touching objects taken apart" if options.instances else "no"
    told["smallest object"] = f"{options.min_area:g}"
    return {name[:1].upper() + name[1:]: value for name, value in told.items()}
