"""CVAT: polygons and masks in the XML that it exports, whose images lie in a folder."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from genselfdiff.data.importers import Import
from genselfdiff.data.importers.files import images_below
from genselfdiff.data.importers.left_out import FEW_VERTICES, NO_CLASS, LeftOut, told
from genselfdiff.data.importers.outlined import NamedImages, Outlined, Polygons, import_outlined
from genselfdiff.data.polygons import FARTHEST, NO_PLACES, has_area, outline
from genselfdiff.errors import InputError
from genselfdiff.input_files import read_xml

_SHAPES = frozenset(
    ("polygon", "mask", "box", "polyline", "points", "ellipse", "cuboid", "skeleton")
)
_NO_RUNS = "whose runs of pixels (rle) are none"


def read_cvat(export: Path, images: Path, classes: Sequence[str] | None = None) -> Import:
    """Read an export in the format "CVAT for images 1.1", its objects drawn by their z_order.

    Places are counted from the corner of the first pixel. A ``mask`` has runs of pixels in its box,
    row by row, those outside of the object and those inside in turns. Left out are images without
    polygons and masks, that are not in the folder or are there twice, and all other shapes.

    Args:
        export: the .xml.
        images: folder of the images.
        classes: the names to take, in the order of their indices, without background; None: all
            there are, by the alphabet.

    Raises:
        InputError: the export is none, has no image that can be used, or other classes than those
            to take; on iterating: no image can be read.
    """
    content, left_out = _Content(export), LeftOut()
    read_xml(export, content.begin, "CVAT")
    files, lost = NamedImages(images_below(images)), Counter[str]()
    outlined: dict[Path, Outlined] = {}
    others: defaultdict[str, list[str]] = defaultdict(list)
    for image in content.images:
        objects = _objects(image.shapes, lost)
        path = files.find(image.name)
        if not objects:
            others["without polygons or masks"].append(image.name)
        elif path is None:
            others["that are not in the folder"].append(image.name)
        elif path in outlined:
            others["of the name of another"].append(image.name)
        else:
            outlined[path] = Outlined(objects, image.size)
    if not outlined:
        reasons = told({**others, **lost}) or "it has no image"
        raise InputError(f"{export}: holds no labelled image that can be used: {reasons}")
    left_out.tell(export, "images", others)
    left_out.tell(export, "outlines", lost)
    return import_outlined(outlined, classes, export, left_out)


@dataclass
class _Image:
    name: str
    size: tuple[Any, Any]
    shapes: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)


class _Content:
    def __init__(self, path: Path) -> None:
        self.images: list[_Image] = []
        self._path = path

    def begin(self, name: str, attributes: dict[str, str]) -> None:
        if name == "track":
            raise InputError(
                f"{self._path}: is an export of a video: choose 'CVAT for images 1.1' in CVAT"
            )
        if name == "image":
            size = (_whole(attributes.get("width")), _whole(attributes.get("height")))
            self.images.append(_Image(attributes.get("name", ""), size))
        elif name in _SHAPES and self.images:
            self.images[-1].shapes.append((name, attributes))


def _objects(
    shapes: list[tuple[str, Mapping[str, str]]], lost: Counter[str]
) -> list[tuple[str, Polygons]]:
    """Class and polygons of each; ``lost`` counts the shapes that have none."""
    objects = []
    for kind, shape in sorted(shapes, key=lambda shape: _whole(shape[1].get("z_order")) or 0):
        try:
            objects.append(_object(kind, shape))
        except InputError as error:
            lost[str(error)] += 1
    return objects


def _object(kind: str, shape: Mapping[str, str]) -> tuple[str, Polygons]:
    """Raise InputError, saying what is wrong with it, where it is no area with a class."""
    if kind == "box":
        raise InputError("that are boxes around objects")
    if kind not in ("polygon", "mask"):
        raise InputError("that are no polygons or masks")
    label = shape.get("label", "").strip()
    if not label:
        raise InputError(NO_CLASS)
    if kind == "mask":
        return label, _rectangles(shape)
    points = outline([place.split(",") for place in shape.get("points", "").split(";") if place])
    if not has_area(points):
        raise InputError(FEW_VERTICES)
    return label, ((points,),)


def _rectangles(mask: Mapping[str, str]) -> Polygons:
    """The pixels of a mask as rectangles: of a run the part of a row, whole rows, and a part."""
    left, top, width, height = (_whole(mask.get(key)) for key in ("left", "top", "width", "height"))
    if left is None or top is None or not width or not height:
        raise InputError(NO_PLACES)
    runs = [_whole(run) for run in mask.get("rle", "").split(",")]
    lengths = np.array([-1 if run is None else run for run in runs], np.int64)
    if lengths.min() < 0 or sum(lengths.tolist()) != width * height:
        raise InputError(_NO_RUNS)
    ends = lengths.cumsum()
    boxes: list[tuple[int, int, int, int]] = []
    for begin, end in zip((ends - lengths)[1::2].tolist(), ends[1::2].tolist(), strict=True):
        while begin < end:
            row, column = divmod(begin, width)
            rows = max((end - begin) // width, 1) if column == 0 else 1
            taken = min(end - begin, rows * width - column)
            boxes.append((left + column, top + row, min(taken, width), rows))
            begin += taken
    if not boxes:
        raise InputError("without a pixel")
    return tuple(
        (outline([(x, y), (x + across, y), (x + across, y + down), (x, y + down)]),)
        for x, y, across, down in boxes
    )


def _whole(text: str | None) -> int | None:
    """The whole number from 0 on in an attribute, None where it is none that a place can be."""
    text = (text or "").strip()
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(int(FARTHEST)))
    return int(text) if is_number else None
