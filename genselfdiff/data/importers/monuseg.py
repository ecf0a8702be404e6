"""MoNuSeg: nuclei outlined with Aperio ImageScope, one XML file beside each image."""

import logging
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from genselfdiff.data.importers import Import
from genselfdiff.data.importers.aperio_xml import Shape, read_shapes
from genselfdiff.data.importers.files import beside, images_below, labels_below, picture
from genselfdiff.data.importers.left_out import FEW_VERTICES, LeftOut, told
from genselfdiff.data.labelled_folder import LabelledField
from genselfdiff.data.naming import stem_of
from genselfdiff.data.polygons import (
    Boxes,
    Points,
    Region,
    draw,
    has_area,
    outline,
    warn_of_outside,
)
from genselfdiff.errors import InputError
from genselfdiff.slides.stored import PLAUSIBLE_MPP, number

logger = logging.getLogger("genselfdiff")

CLASSES = ("background", "nucleus")

_NEEDLESS = "that take nothing away (NegativeROA)"


def read_monuseg(folder: Path, images: Path | None = None) -> Import:
    """Read all images below ``images``, or ``folder``, with an XML file of their name in that.

    Every Region of every Annotation is a nucleus, drawn over those before it, unless it is a
    NegativeROA: that is a hole in those of its Annotation. Vertices are the centres of pixels, as
    in the masks of the challenge; outlines may be open.

    Raises:
        InputError: there is no such pair; on iterating: no pair can be read.
    """
    outlines = labels_below(folder, {".xml"})
    left_out = LeftOut()
    pairs = beside(images_below(images or folder), outlines, folder, "XML file", left_out)
    readers = [partial(_read, *pair, left_out) for pair in pairs]
    return Import(CLASSES, len(pairs), left_out.each(readers), left_out)


def _read(image: Path, xml: Path, left_out: LeftOut) -> LabelledField:
    regions, mpp = read_regions(xml, left_out)
    pixels, (height, width) = picture(image)
    warn_of_outside(regions, height, width, xml)
    classes, instances = draw(regions, height, width)
    return LabelledField(stem_of(image), pixels, classes, instances, mpp, xml)


def read_regions(path: Path, left_out: LeftOut) -> tuple[list[Region], float | None]:
    """Read the regions of an ImageScope file, each of class 1, and its micrometres per pixel.

    Raises:
        InputError: the file cannot be read, or holds no Region that is an outline.
    """
    layers, mpp = read_shapes(path)
    lost: Counter[str] = Counter()
    regions = [region for layer in layers for region in _regions(layer, lost)]
    if not regions:
        reasons = told(lost) or "it has none"
        raise InputError(f"{path}: holds no Region that is an outline: {reasons}")
    left_out.tell(path, "outlines", lost)
    return regions, _resolution(path, mpp)


def _regions(layer: Sequence[Shape], lost: Counter[str]) -> list[Region]:
    """The regions of an Annotation, with what its NegativeROAs take away as holes.

    These are holes in the regions before them, and in larger ones wherever they stand.
    """
    shapes: list[tuple[Shape, Region]] = []
    for shape in layer:
        try:
            shapes.append((shape, Region(1, ((_points(shape),),))))
        except InputError as error:
            lost[str(error)] += 1
    positive = [(n, region) for n, (shape, region) in enumerate(shapes) if not shape.is_negative]
    holes: list[list[Points]] = [[] for _ in positive]
    if len(positive) < len(shapes):
        order = np.array([n for n, _ in positive], int)
        areas = np.array([region.area() for _, region in positive])
        boxes = Boxes([region for _, region in positive])
    for place, (shape, region) in enumerate(shapes):
        if shape.is_negative:
            meets = boxes.meeting(*region.box())
            cut = np.flatnonzero(meets & ((order < place) | (areas >= region.area())))
            for index in cut:
                holes[index].append(region.polygons[0][0])
            lost[_NEEDLESS] += not len(cut)
    return [
        Region(1, ((*region.polygons[0], *cut),))
        for (_, region), cut in zip(positive, holes, strict=True)
    ]


def _points(shape: Shape) -> Points:
    """Raise InputError, saying what is wrong with its vertices, where they are no outline."""
    if shape.is_box:
        raise InputError("that are ellipses, arrows or rulers")
    points = outline(shape.vertices) + 0.5
    if not has_area(points):
        raise InputError(FEW_VERTICES)
    return points


def _resolution(path: Path, text: str) -> float | None:
    """Micrometres per pixel of the file's MicronsPerPixel, None where it is none or 0."""
    mpp = number(text or "0")
    if PLAUSIBLE_MPP[0] <= mpp <= PLAUSIBLE_MPP[1]:
        return mpp
    if mpp != 0:
        logger.warning("%s: MicronsPerPixel is %s, which no microscope has", path, text)
    return None
