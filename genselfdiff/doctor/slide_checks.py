"""Looks at a slide: whether it opens, states its resolution, and reads whole and fast enough."""

import time
from collections.abc import Iterator
from statistics import median

from genselfdiff.doctor.findings import Finding, ok, warning, wrong
from genselfdiff.errors import GsdError, one_line
from genselfdiff.models.model_info import ModelInfo
from genselfdiff.slides import Slide, open_slide
from genselfdiff.storage.places import Place

_SAMPLE, _SAMPLE_SECONDS = 64, 20.0
"""Tiles that are read, and the time after which no more are."""

_LARGE_PIECE = 2**24
_LARGE_SLIDE = 2**27
"""Pixels."""

_SLOW = 1.0
"""Mpx/s."""


def slide_findings(path: Place, info: ModelInfo | None) -> Iterator[Finding]:
    """All of a slide.

    Args:
        path: where it is.
        info: of the model that is to segment it, if that could be read.
    """
    try:
        slide = open_slide(path)
    except GsdError as error:
        yield wrong("slide", one_line(error))
        return
    with slide:
        size = f"{slide.width:,} x {slide.height:,} pixels, levels: {len(slide.levels)}"
        yield ok("slide", f"{slide.path}: {size}")
        yield _resolution(slide, info)
        yield from _stored(slide)
        yield from _sample(slide)


def _resolution(slide: Slide, info: ModelInfo | None) -> Finding:
    wanted = slide.mpp or 1.0 if info is None else info.mpp
    try:
        slide.at_mpp(wanted)
    except GsdError as error:
        return wrong("resolution", one_line(error))
    if slide.mpp is None:
        return ok("resolution", "not stated, and the model does not ask for it")
    return ok("resolution", f"{slide.mpp:g} um/px")


def _stored(slide: Slide) -> Iterator[Finding]:
    advice = "convert it to a tiled pyramid, for example: vips tiffsave --tile --pyramid"
    piece = slide.piece_pixels(0)
    if piece > _LARGE_PIECE:
        yield warning("tiles", f"{piece / 1e6:.0f} Mpx are decoded to read one pixel", advice)
    if len(slide.levels) == 1 and slide.width * slide.height > _LARGE_SLIDE:
        told = "has no pyramid: all of it is read to find its tissue"
        yield warning("levels", told, advice)


def _sample(slide: Slide) -> Iterator[Finding]:
    """Read stored tiles of level 0 that are spread over the slide."""
    rows = slide.piece_rows(0)
    columns = slide.piece_pixels(0) // rows
    across, down = -(-slide.width // columns), -(-slide.height // rows)
    count = min(_SAMPLE, across * down)
    seconds: list[float] = []
    damaged: list[GsdError] = []
    pixels = 0
    for number in range(count):
        row, column = divmod(number * across * down // count, across)
        x, y = column * columns, row * rows
        width, height = min(columns, slide.width - x), min(rows, slide.height - y)
        begin = time.perf_counter()
        try:
            slide.read_level(x, y, width, height)
        except GsdError as error:
            damaged.append(error)
        seconds.append(time.perf_counter() - begin)
        pixels += width * height
        if sum(seconds) > _SAMPLE_SECONDS:
            break
    told = f"{len(seconds)} of {across * down:,} tiles read"
    if damaged:
        yield wrong("sample", f"{told}, {len(damaged)} not readable; first: {one_line(damaged[0])}")
    else:
        yield ok("sample", f"{told}, all whole")
    speed = pixels / 1e6 / max(sum(seconds), 1e-9)
    told = f"{speed:.1f} Mpx/s, {1e3 * median(seconds):.1f} ms a tile, one after another"
    if speed < _SLOW:
        yield warning("reading", told, "copy the slide to a disk of this machine")
    else:
        yield ok("reading", told)
