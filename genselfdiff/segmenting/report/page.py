"""A page about a segmented slide: pictures, classes, sizes of objects, and how it was made."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from genselfdiff.files import refuse_existing, write_text
from genselfdiff.json_records import as_json
from genselfdiff.masks import draw_overlay
from genselfdiff.pages import (
    Colour,
    css_colour,
    definitions,
    escape,
    footer,
    jpeg_address,
    style,
    table,
)
from genselfdiff.progress import duration
from genselfdiff.segmenting.report.size_histogram import diameter, histogram_svg, middle
from genselfdiff.segmenting.result import SegmentResult
from genselfdiff.segmenting.sidecar_record import ObjectSettings
from genselfdiff.slides import Slide

_PICTURE = 1200
"""Longer side of the pictures in pixels: what a wide screen shows of one."""


def write_report(
    path: str | Path,
    result: SegmentResult,
    slide: Slide,
    palette: Sequence[Colour],
    *,
    sizes: Mapping[str, Counter[int]] | None = None,
    settings: Mapping[str, str] | None = None,
    made_with: ObjectSettings | None = None,
    overwrite: bool = False,
) -> None:
    """Write one HTML file that needs no other, for screens of any width and for paper.

    Args:
        path: the file to write.
        result: what ``segment`` has done; its mask is drawn over the slide.
        slide: the slide, open.
        palette: (red, green, blue) of each class.
        sizes: of the objects of each class, how many there are of each area in pixels, as
            ``write_objects`` counts them; None: objects were not looked for.
        settings: what the run was asked for, by name.
        made_with: what later runs are told of it in the page's head, see `SidecarRecord`.
        overwrite: replace ``path`` if it exists.

    Raises:
        InputError: slide or mask cannot be read.
        OutputError: ``path`` exists or cannot be written.
    """
    path = Path(path)
    refuse_existing(path, overwrite)
    template = Template((files(__package__) / "page.html").read_text(encoding="utf-8"))
    colours = dict(zip(result.pixels, palette, strict=False))
    page = template.substitute(
        made_with=escape(json.dumps(None if made_with is None else as_json(made_with))),
        title=escape(result.slide.name),
        lead=escape(_lead(result)),
        thumbnail=jpeg_address(slide.thumbnail(_PICTURE)),
        overlay=jpeg_address(draw_overlay(slide, result.files.mask, palette, _PICTURE)),
        classes=_classes(result, sizes, colours),
        histograms="\n".join(_histograms(result, sizes or {}, colours)),
        run=definitions(_run(result, settings or {})),
        style=style(),
        footer=footer(),
    )
    write_text(path, page)


def _lead(result: SegmentResult) -> str:
    size = f"{result.width:,} x {result.height:,} pixels"
    if result.mpp is None:
        return f"{size}; resolution unknown"
    width, height = (side * result.mpp / 1000 for side in (result.width, result.height))
    return f"{size} of {result.mpp:.4g} \u00b5m: {width:.3g} x {height:.3g} mm"


def _classes(
    result: SegmentResult,
    sizes: Mapping[str, Counter[int]] | None,
    colours: Mapping[str, Colour],
) -> str:
    unit = "px" if result.mpp is None else "\u00b5m"
    head = ["Class", "Share", "Pixels" if result.areas is None else "Area, mm\u00b2"]
    if sizes is not None:
        head += ["Objects", f"Median diameter, {unit}"]
    total = max(1, sum(result.pixels.values()))
    rows = []
    for name, count in result.pixels.items():
        share = 100 * count / total
        colour = css_colour(colours.get(name))
        bar = f'<span class="bar"><i style="width:{share:.2f}%;background:{colour}"></i></span>'
        cells = [
            f'<span class="swatch" style="background:{colour}"></span>{escape(name)}',
            f"{share:.2f} %{bar}",
            f"{count:,}" if result.areas is None else f"{result.areas[name]:.4g}",
        ]
        if sizes is not None:
            found = sizes.get(name)
            typical = f"{diameter(middle(found), result.mpp):.3g}" if found else ""
            cells += ["" if found is None else f"{found.total():,}", typical]
        rows.append(cells)
    return table([escape(cell) for cell in head], rows)


def _histograms(
    result: SegmentResult, sizes: Mapping[str, Counter[int]], colours: Mapping[str, Colour]
) -> list[str]:
    unit = "pixels" if result.mpp is None else "\u00b5m"
    return [
        f"<section><h2>Sizes of {escape(name)}</h2>"
        f"{histogram_svg(found, result.mpp, css_colour(colours.get(name)), unit)}</section>"
        for name, found in sizes.items()
        if found
    ]


def _run(result: SegmentResult, settings: Mapping[str, str]) -> dict[str, str]:
    speed = sum(result.pixels.values()) / 1e6 / max(result.seconds, 1e-9)
    entries = {
        "Mask": result.files.mask.name,  # pages are passed on: no folders
        "Tiles": f"{result.tiles:,} predicted, {result.skipped:,} without tissue skipped",
        "Time": "made by an earlier run"
        if result.finished_before
        else f"{duration(result.seconds)}, {speed:.3g} Mpx/s",
        "Device": f"{result.device} in {result.precision}",
    }
    return entries | dict(settings)
