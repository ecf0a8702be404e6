"""MoNuSeg: nuclei outlined with Aperio ImageScope, one XML file beside each image."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from genselfdiff.data.importers import Import
from genselfdiff.data.importers.files import beside, images_below, picture
from genselfdiff.data.labelled_folder import LabelledField
from genselfdiff.data.polygons import (
    FEW_VERTICES,
    Region,
    draw,
    has_area,
    warn_of_left_out,
    warn_of_outside,
)
from genselfdiff.errors import InputError, one_line

CLASSES = ("background", "nucleus")


def read_monuseg(folder: Path, images: Path | None = None) -> Import:
    """Read all images below ``images``, or ``folder``, with an XML file of their name in that.

    Every Region of every Annotation is a nucleus, drawn over those before it. Vertices are the
    centres of pixels, as in the masks of the challenge; outlines may be open.

    Raises:
        InputError: there is no such pair; on iterating: a file cannot be read.
    """
    outlines = {path.stem: path for path in sorted(folder.rglob("*.xml"))}
    pairs = beside(images_below(images or folder), outlines, folder, "XML file")
    return Import(CLASSES, len(pairs), _fields(pairs))


def _fields(pairs: Sequence[tuple[Path, Path]]) -> Iterator[LabelledField]:
    for image, xml in pairs:
        pixels, (height, width) = picture(image)
        regions, mpp = read_aperio_xml(xml)
        warn_of_outside(regions, height, width, xml)
        classes, instances = draw(regions, height, width)
        yield LabelledField(image.stem, pixels, classes, instances, mpp, xml)


def read_aperio_xml(path: Path) -> tuple[list[Region], float | None]:
    """Read the regions of an ImageScope file, each of class 1, and its micrometres per pixel.

    Raises:
        InputError: the file cannot be read, or holds no Region.
    """
    try:
        text = path.read_bytes()
        if b"<!ENTITY" in text:  # entities could expand without bound
            raise InputError(f"{path}: defines entities, as no file of ImageScope does")
        root = ElementTree.fromstring(text)
        regions = [_region(region) for region in root.iter("Region")]
        mpp = float(root.get("MicronsPerPixel", "nan"))
    except (OSError, ElementTree.ParseError, TypeError, ValueError) as error:
        raise InputError(f"{path}: is no XML file of ImageScope: {one_line(error)}") from error
    if not regions:
        raise InputError(f"{path}: holds no Region: give the XML files of MoNuSeg")
    areas = [region for region in regions if has_area(region.rings[0])]
    warn_of_left_out(path, {FEW_VERTICES: len(regions) - len(areas)})
    return areas, mpp if mpp > 0 else None


def _region(region: ElementTree.Element) -> Region:
    vertices = [(vertex.get("X"), vertex.get("Y")) for vertex in region.iter("Vertex")]
    points = np.array(vertices, np.float64).reshape(-1, 2)
    if not np.isfinite(points).all():
        raise ValueError("a vertex without a place")
    return Region(1, (points + 0.5,))
