"""Cutting fields out of slides, with what is drawn in them."""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from genselfdiff.data.importers.left_out import LeftOut
from genselfdiff.data.labelled_folder import IGNORED, LabelledField
from genselfdiff.data.polygons import Boxes, Region, draw
from genselfdiff.errors import InputError
from genselfdiff.slides import Slide, open_slide
from genselfdiff.slides.resolution import BLURRED_ENLARGEMENT

logger = logging.getLogger("genselfdiff")

MAX_FIELD_PIXELS = 2**28

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels of level 0."""


@dataclass(frozen=True)
class Scales:
    """Resolutions in um/px, and colours.

    Attributes:
        fields: at which fields are cut; None: that of level 0.
        slides: of those whose files do not tell it; None: there are none.
        icc: colours are those of the slides' ICC profiles, see `open_slide`.
    """

    fields: float | None = None
    slides: float | None = None
    icc: bool = False


AS_STORED = Scales()


class Window(NamedTuple):
    """A part of a slide: pixels of level 0 to one of it, its corner in its own pixels, its size."""

    scale: float
    x: int
    y: int
    width: int
    height: int


class Drawing:
    """What is drawn on a slide, in pixels of level 0: larger regions first."""

    def __init__(self, slide: Path, source: Path, regions: Sequence[Region]) -> None:
        self.slide = slide
        self.source = source
        self.regions = sorted(regions, key=lambda region: -region.area())
        self._boxes = Boxes(self.regions)
        self._warned: set[str] = set()

    def warn_once(self, text: str) -> None:
        """Log something of the slide, however many fields it has."""
        if text not in self._warned:
            self._warned.add(text)
            logger.warning("%s: %s", self.slide, text)

    def count_outside(self, boxes: Iterable[Box]) -> int:
        """How many regions meet none of the boxes."""
        meets = np.zeros(len(self.regions), np.bool_)
        for box in boxes:
            meets |= self._boxes.meeting(*box)
        return int((~meets).sum())

    def within(self, box: Box) -> list[Region]:
        """The regions that meet a box, in their order."""
        return [self.regions[index] for index in np.flatnonzero(self._boxes.meeting(*box))]


def cut_field(
    drawing: Drawing, name: str, field: Region | None, scales: Scales, left_out: LeftOut
) -> LabelledField:
    """Cut the box around a field out of a slide; without one, all of the slide.

    What is in the box but not in the field, where that is no upright rectangle, is `IGNORED`.

    Raises:
        InputError: the slide cannot be read at that resolution, or the field is too large or lies
            outside of it.
    """
    with _open(drawing.slide, scales) as slide:
        view = slide.at_mpp(scales.fields)
        if field is None:
            box = (0, 0, slide.width, slide.height)
            outside = drawing.count_outside([box])
            left_out.tell(drawing.source, "outlines", {"outside of the slide": outside})
        else:
            box = box_around(field)
        left, top, right, bottom = box
        x, y = max(round(left / view.scale), 0), max(round(top / view.scale), 0)
        width = min(round(right / view.scale), view.width) - x
        height = min(round(bottom / view.scale), view.height) - y
        where = f"{drawing.source}: the field at {left}, {top}"
        if width < 1 or height < 1:
            raise InputError(f"{where} lies outside {drawing.slide}")
        if width * height > MAX_FIELD_PIXELS:
            raise InputError(
                f"{where} has {width} x {height} pixels, too many: annotate rectangles of the class"
                " Region* around the parts that are labelled"
            )
        if view.scale < 1 / BLURRED_ENLARGEMENT:
            drawing.warn_once("coarser than --mpp, its fields will be blurred")
        pixels = view.read(x, y, width, height)
        window = Window(view.scale, x, y, width, height)
        classes, instances = draw_field(drawing.within(box), field, window)
        mpp = scales.fields or slide.mpp
    return LabelledField(name, pixels, classes, instances, mpp, drawing.source)


def draw_field(
    regions: Iterable[Region], field: Region | None, window: Window
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Draw regions of level 0 into a window, as `draw`; `IGNORED` is what is beside the field.

    Args:
        regions: in the order in which they are drawn.
        field: None: all of the window.
        window: where.
    """
    _, _, _, width, height = window
    classes, instances = draw((_moved(region, window) for region in regions), height, width)
    if field is not None and not _is_upright(field):
        inside, _ = draw([_moved(field, window)], height, width)
        classes[inside == 0] = IGNORED
        instances[inside == 0] = 0
    return classes, instances


def box_around(region: Region) -> Box:
    """The pixels that a region reaches into."""
    left, top, right, bottom = region.box()
    return math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)


def _is_upright(region: Region) -> bool:
    """Whether it is a rectangle whose sides are those of its box."""
    left, top, right, bottom = region.box()
    is_whole = len(region.polygons) == len(region.polygons[0]) == 1
    return is_whole and math.isclose(region.area(), (right - left) * (bottom - top))


def _moved(region: Region, window: Window) -> Region:
    """A region of level 0, in pixels of a window."""
    corner = window.x, window.y
    return Region(
        region.label,
        tuple(tuple(ring / window.scale - corner for ring in rings) for rings in region.polygons),
    )


def _open(path: Path, scales: Scales) -> Slide:
    slide = open_slide(path, icc=scales.icc)
    if slide.mpp is None and scales.slides is not None:
        slide.close()
        slide = open_slide(path, mpp=scales.slides, icc=scales.icc)
    if slide.mpp is None and scales.fields is not None:
        slide.close()
        raise InputError(
            f"{path}: the file does not state its resolution: give it with --image-mpp (um/px), or"
            " leave out --mpp to take its pixels as they are"
        )
    return slide
