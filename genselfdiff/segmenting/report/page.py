"""A page about a segmented slide: pictures, classes, sizes of objects, and how it was made."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from genselfdiff.files import write_text
from genselfdiff.json_records import as_json
from genselfdiff.masks import draw_overlay
from genselfdiff.pages import Colour, css_colour, jpeg_address, render
from genselfdiff.segmenting.report.size_histogram import diameter, histogram_svg, middle
from genselfdiff.segmenting.result import SegmentResult
from genselfdiff.segmenting.sidecar_record import ObjectSettings
from genselfdiff.slides import Slide

_PICTURE = 1200
"""Longer side of the pictures in pixels: what a wide screen shows of one."""

_SPECK = 10.0
"""Square micrometres: nuclei are larger, but for few."""


@dataclass(frozen=True)
class Report:
    """What a page tells.

    Attributes:
        result: what ``segment`` has done; its mask is drawn over the slide.
        palette: (red, green, blue) of each class.
        sizes: of the objects of each class, how many there are of each area in pixels, as
            ``write_objects`` counts them.
        settings: what the run was asked for, by name.
        made_with: what later runs are told of it in the page's head, see `SidecarRecord`.
    """

    result: SegmentResult
    palette: Sequence[Colour]
    sizes: Mapping[str, Counter[int]]
    settings: Mapping[str, str]
    made_with: ObjectSettings


def write_report(path: Path, slide: Slide, report: Report) -> None:
    """Write one HTML file that needs no other, for screens of any width and for paper.

    Raises:
        InputError: slide or mask cannot be read.
        OutputError: ``path`` cannot be written.
    """
    result, sizes = report.result, report.sizes
    colours = dict(zip(result.pixels, map(css_colour, report.palette), strict=False))
    unit = "px" if result.mpp is None else "\u00b5m"
    area = "Pixels" if result.areas is None else "Area, mm\u00b2"
    page = render(
        "report.html",
        made_with=json.dumps(as_json(report.made_with)),
        title=result.slide.name,
        lead=_lead(result),
        thumbnail=jpeg_address(slide.thumbnail(_PICTURE)),
        overlay=jpeg_address(draw_overlay(slide, result.files.mask, report.palette, _PICTURE)),
        columns=["Class", "Share", area, "Objects", f"Median diameter, {unit}"],
        classes=[*_classes(result, sizes, colours)],
        notes=[*_notes(result, sizes)],
        histograms=[
            (name, histogram_svg(found, result.mpp, colours.get(name, css_colour(None)), unit))
            for name, found in sizes.items()
            if found
        ],
        run=_run(result, report.settings),
    )
    write_text(path, page)


def _lead(result: SegmentResult) -> str:
    size = f"{result.width:,} x {result.height:,} pixels"
    if result.mpp is None:
        return f"{size}; resolution unknown"
    width, height = (side * result.mpp / 1000 for side in (result.width, result.height))
    return f"{size} of {result.mpp:.4g} \u00b5m: {width:.3g} x {height:.3g} mm"


def _classes(
    result: SegmentResult, sizes: Mapping[str, Counter[int]], colours: Mapping[str, str]
) -> Iterator[dict[str, object]]:
    """Of each class the name, the colour, its share in percent, and what else is in its row."""
    total = max(1, sum(result.pixels.values()))
    for name, count in result.pixels.items():
        found = sizes.get(name)
        cells = [
            f"{count:,}" if result.areas is None else f"{result.areas[name]:.4g}",
            "" if found is None else f"{found.total():,}",
            f"{diameter(middle(found), result.mpp):.3g}" if found else "",
        ]
        colour = colours.get(name, css_colour(None))
        share = f"{100 * count / total:.2f}"
        yield {"name": name, "colour": colour, "share": share, "cells": cells}


def _notes(result: SegmentResult, sizes: Mapping[str, Counter[int]]) -> Iterator[str]:
    """What to know before objects are counted on: that most of them are specks."""
    if result.mpp is None:
        return
    for name, found in sizes.items():
        specks = sum(n for area, n in found.items() if area * result.mpp**2 < _SPECK)
        if 2 * specks > found.total():
            yield (
                f"Of the {found.total():,} objects of {name}, {specks:,}"
                f" ({specks / found.total():.0%}) are smaller than {_SPECK:g} \u00b5m\u00b2: specks"
                " rather than cells. Look at the mask, or leave them out: gsd objects --min-area."
            )


def _run(result: SegmentResult, settings: Mapping[str, str]) -> dict[str, str]:
    entries = {
        "Mask": result.files.mask.name,  # pages are passed on: no folders
        "Tiles": f"{result.tiles:,} predicted, {result.skipped:,} without tissue skipped",
        "Time": "made by an earlier run" if result.finished_before else result.speed,
        "Device": f"{result.device} in {result.precision}",
    }
    return entries | dict(settings)
