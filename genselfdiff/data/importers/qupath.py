"""QuPath: annotations that it exports as GeoJSON, over a slide or an image."""

import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genselfdiff.data.importers import Import
from genselfdiff.data.importers.files import beside, images_below
from genselfdiff.data.labelled_folder import LabelledField, require_names
from genselfdiff.data.polygons import FEW_VERTICES, Region, draw, has_area, warn_of_left_out
from genselfdiff.errors import InputError, one_line
from genselfdiff.slides import open_slide
from genselfdiff.slides.resolution import BLURRED_ENLARGEMENT

logger = logging.getLogger("genselfdiff")

FIELD_CLASS = "Region*"
"""QuPath's own class for what is no tissue class, but a part of the slide."""

MAX_FIELD_PIXELS = 2**28

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class _Annotation:
    name: str
    polygons: Sequence[Sequence[Any]]  # rings of points of x and y, in pixels of level 0

    def has_area(self) -> bool:
        return any(has_area(np.array(rings[0], np.float64)) for rings in self.polygons)

    def box(self) -> tuple[float, float, float, float]:
        points = np.array([point for rings in self.polygons for point in rings[0]], np.float64)
        return *points.min(0).tolist(), *points.max(0).tolist()


def read_qupath(
    slides: Path,
    annotations: Path,
    *,
    mpp: float | None = None,
    field_class: str = FIELD_CLASS,
    classes: Sequence[str] | None = None,
) -> Import:
    """Cut labelled fields out of slides that were annotated in QuPath.

    A field is the box of each annotation of ``field_class``, rectangles in which everything has
    been annotated; without any, all of the slide. In it, objects of other classes are drawn,
    larger ones first, so that none is hidden under what contains it. Objects without a class, lines
    and points are left out, with a warning.

    Args:
        slides: a slide, or a folder of slides.
        annotations: the ``.geojson`` or ``.json`` of the slide; of a folder, that of files with the
            names of the slides.
        mpp: resolution of the fields in um/px, at which they are cut; None: that of level 0.
        field_class: of the annotations that say where fields are.
        classes: the names to take, in the order of their indices, without background; None: all
            there are, by the alphabet.

    Raises:
        InputError: slides and annotations do not pair, or a file is not what it should be; on
            iterating: a slide cannot be read, or a field is too large.
    """
    if slides.is_dir():
        found = [p for p in sorted(annotations.rglob("*")) if p.suffix in (".geojson", ".json")]
        pairs = beside(images_below(slides), {p.stem: p for p in found}, annotations, "GeoJSON")
    else:
        pairs = [(slides, annotations)]
    read = {image: _read(path) for image, path in pairs}
    kinds = sorted({a.name for each in read.values() for a in each} - {field_class})
    names = ["background", *(kinds if classes is None else classes)]
    require_names(names, annotations)
    fields = {image: _fields_of(each, field_class) for image, each in read.items()}
    count = sum(max(len(boxes), 1) for boxes in fields.values())
    objects = {
        image: [a for a in each if a.name in names[1:] and a.name != field_class]
        for image, each in read.items()
    }
    return Import(names, count, _cut(pairs, fields, objects, names, mpp))


def _cut(
    pairs: Sequence[tuple[Path, Path]],
    fields: dict[Path, list[Box]],
    objects: dict[Path, list[_Annotation]],
    names: Sequence[str],
    mpp: float | None,
) -> Iterator[LabelledField]:
    for image, path in pairs:
        with open_slide(image) as slide:
            boxes = fields[image] or [(0, 0, slide.width, slide.height)]
            view = slide.at_mpp(mpp)
            if view.scale < 1 / BLURRED_ENLARGEMENT:
                logger.warning("%s: coarser than --mpp %g, the fields will be blurred", image, mpp)
            scale = view.scale
            lost = sum(not any(_touches(a, *box) for box in boxes) for a in objects[image])
            warn_of_left_out(path, {"outside of all fields": lost})
            for number, (left, top, right, bottom) in enumerate(boxes, start=1):
                x, y = max(round(left / scale), 0), max(round(top / scale), 0)
                width = min(round(right / scale), view.width) - x
                height = min(round(bottom / scale), view.height) - y
                where = f"{path}: the field at {left}, {top}"
                if width < 1 or height < 1:
                    raise InputError(f"{where} lies outside {image}")
                if width * height > MAX_FIELD_PIXELS:
                    raise InputError(
                        f"{where} has {width} x {height} pixels, too many: annotate rectangles of"
                        f" the class {FIELD_CLASS} around the parts that are labelled"
                    )
                inside = [a for a in objects[image] if _touches(a, left, top, right, bottom)]
                regions = [
                    Region(names.index(a.name), rings)
                    for a in inside
                    for rings in _scaled(a, scale, x, y)
                ]
                regions.sort(key=lambda region: -_area(region))
                classes, instances = draw(regions, height, width)
                name = image.stem if len(boxes) == 1 else f"{image.stem}_{number}"
                pixels = view.read(x, y, width, height)
                yield LabelledField(name, pixels, classes, instances, mpp or slide.mpp, path)


def _read(path: Path) -> list[_Annotation]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        features = content["features"] if isinstance(content, dict) else content
        found = [annotation for feature in features for annotation in _annotations(feature)]
        named = [annotation for annotation in found if annotation.name]
        areas = [annotation for annotation in named if annotation.has_area()]
        lost = {
            "without a class": len(found) - len(named),
            "that are no areas": len(features) - len(found),
            FEW_VERTICES: len(named) - len(areas),
        }
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else one_line(error)
        raise InputError(f"{path}: is no GeoJSON of QuPath: {reason}") from error
    warn_of_left_out(path, lost)
    return areas


def _annotations(feature: dict[str, Any]) -> Iterator[_Annotation]:
    geometry, properties = feature["geometry"], feature.get("properties") or {}
    kind = properties.get("classification") or {}
    name = str(kind.get("name") or ": ".join(kind.get("names") or [])).strip()
    if geometry["type"] == "Polygon":
        yield _Annotation(name, [geometry["coordinates"]])
    elif geometry["type"] == "MultiPolygon":
        yield _Annotation(name, geometry["coordinates"])


def _fields_of(annotations: Sequence[_Annotation], field_class: str) -> list[Box]:
    boxes = [a.box() for a in annotations if a.name == field_class]
    return [
        (math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom))
        for left, top, right, bottom in boxes
    ]


def _touches(annotation: _Annotation, *box: float) -> bool:
    left, top, right, bottom = annotation.box()
    return left < box[2] and right > box[0] and top < box[3] and bottom > box[1]


def _scaled(
    annotation: _Annotation, scale: float, x: int, y: int
) -> Iterator[tuple[np.ndarray, ...]]:
    for polygon in annotation.polygons:
        yield tuple(np.array(ring, np.float64)[:, :2] / scale - (x, y) for ring in polygon)


def _area(region: Region) -> float:
    x, y = region.rings[0].T
    return abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2
