"""What comes of corrections: a folder that training takes, and GeoJSON that QuPath opens."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from genselfdiff.choices import FIELD_CLASS
from genselfdiff.data.labelled_folder import IGNORED, LabelledField, Written, write_fields
from genselfdiff.data.naming import stem_of
from genselfdiff.errors import InputError
from genselfdiff.objects.outlines import Outline, OutlineTracer
from genselfdiff.objects.painting import paint
from genselfdiff.slides import open_slide
from genselfdiff.storage.places import Place, place_of
from genselfdiff.text import file_name
from genselfdiff.viewer.corrections.field_labels import Box, FieldLabels, Int32
from genselfdiff.viewer.corrections.folder import Corrections, DrawnClass, DrawnSlide
from genselfdiff.viewer.corrections.geojson_files import GeoJsonFiles

CONTEXT = 64
"""Pixels around a field that are cut out with it, not labelled: networks look beyond its edge."""

_FIELD_COLOUR = (0, 0, 0)
_IGNORED_CLASS = DrawnClass("Ignore*", (180, 180, 180))


def write_results(
    corrections: Corrections,
    slides: Sequence[Place] = (),
    *,
    progress: bool | None = None,
) -> Written:
    """Write ``images/``, ``masks/``, ``instances/`` and ``geojson/`` into the folder.

    Images are cut out at full resolution, with `CONTEXT` around the field where the slide has it;
    there, and where people say that they do not know, masks are 255.

    Args:
        corrections: what is drawn.
        slides: where slides are that have been moved: those of the same name.
        progress: as `write_fields`.

    Raises:
        InputError: nothing is drawn, or a slide is not there, cannot be read or is another.
        OutputError: the folder cannot be written, or files of others lie in it.
    """
    drawn = [(slide, list(corrections.fields(slide))) for slide in corrections.slides()]
    drawn = [(slide, fields) for slide, fields in drawn if fields]
    if not drawn:
        raise InputError(f"{corrections.folder}: no field is framed yet")
    classes = corrections.classes()
    if len(classes) < 2:
        raise InputError(f"{corrections.folder}: add a class to draw first")
    names = _names([slide for slide, _ in drawn])
    files = GeoJsonFiles(corrections.folder / "geojson", names.values())
    written = write_fields(
        corrections.folder,
        [each.name for each in classes],
        _cut(corrections, drawn, names, slides),
        total=sum(len(fields) for _, fields in drawn),
        overwrite=True,
        progress=progress,
    )
    files.write(
        {
            names[slide.key]: _geojson([corrections.labels(slide, f) for f in fields], classes)
            for slide, fields in drawn
        }
    )
    return written


def objects_of(labels: FieldLabels) -> list[Outline]:
    """The objects of a field: what has one number and hangs together; 0 is what is ignored."""
    ignored = labels.labels == IGNORED
    numbers = np.where(ignored, labels.objects.max(initial=0) + 1, labels.objects)
    tracer = OutlineTracer(numbers.shape[1])
    return [*tracer.push(numbers), *tracer.finish()]


def _cut(
    corrections: Corrections,
    drawn: Sequence[tuple[DrawnSlide, list[str]]],
    names: dict[str, str],
    slides: Sequence[Place],
) -> Iterator[LabelledField]:
    for told, fields in drawn:
        place = _place_of(told, slides)
        with open_slide(place, mpp=told.mpp, icc=told.icc) as slide:
            if (slide.width, slide.height) != (told.width, told.height):
                raise InputError(
                    f"{place}: has {slide.width} x {slide.height} pixels, and what was drawn on"
                    f" {told.width} x {told.height}: it is another slide"
                )
            for field in fields:
                labels = corrections.labels(told, field)
                box = labels.field
                left, top = max(box.x - CONTEXT, 0), max(box.y - CONTEXT, 0)
                right = min(box.x + box.width + CONTEXT, slide.width)
                bottom = min(box.y + box.height + CONTEXT, slide.height)
                around = (box.y - top, bottom - box.y - box.height)
                beside = (box.x - left, right - box.x - box.width)
                yield LabelledField(
                    f"{names[told.key]}_x{box.x}_y{box.y}",
                    slide.read_level(left, top, right - left, bottom - top),
                    np.pad(labels.labels, (around, beside), constant_values=IGNORED),
                    np.pad(_instances(labels), (around, beside)),
                    told.mpp,
                    corrections.journal,
                )


def _place_of(told: DrawnSlide, slides: Sequence[Place]) -> Place:
    """Where a slide is now: where it was, or the one of its name among ``slides``."""
    place = place_of(told.place)
    if isinstance(place, Path) and os.path.exists(place):
        return place
    # A URL stands in the journal without what may be secret.
    for known in (str, lambda slide: slide.name):
        for slide in slides:
            if known(slide) in (told.place, told.name):
                return slide
    if isinstance(place, Path):
        raise InputError(f"{place}: the slide is not there any more: say where with --slides")
    return place


def _instances(labels: FieldLabels) -> Int32:
    """(H, W) numbers of `objects_of`, 0 where none is."""
    height, width = labels.labels.shape
    painted = paint([each.rings for each in objects_of(labels)], (height + 1, width + 1))
    painted = painted[:-1, :-1]
    return np.where(labels.objects > 0, painted, 0).astype(np.int32)


def _geojson(fields: Sequence[FieldLabels], classes: Sequence[DrawnClass]) -> bytes:
    features = [_frame(each.field) for each in fields]
    for labels in fields:
        features += [_object(outline, labels, classes) for outline in objects_of(labels)]
    content = {"type": "FeatureCollection", "features": features}
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def _frame(box: Box) -> dict[str, Any]:
    right, bottom = box.x + box.width, box.y + box.height
    ring = [(box.x, box.y), (right, box.y), (right, bottom), (box.x, bottom), (box.x, box.y)]
    return _feature([ring], DrawnClass(FIELD_CLASS, _FIELD_COLOUR))


def _object(outline: Outline, labels: FieldLabels, classes: Sequence[DrawnClass]) -> dict[str, Any]:
    x, y = outline.rings[0][0].tolist()  # the leftmost of the highest corners: of a pixel inside
    label = int(labels.labels[y, x])
    kind = _IGNORED_CLASS if label == IGNORED else classes[label]
    corner = labels.field.x, labels.field.y
    return _feature([ring + corner for ring in outline.rings], kind)


def _feature(rings: Sequence[Any], kind: DrawnClass) -> dict[str, Any]:
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": rings},
        "properties": {
            "objectType": "annotation",
            "classification": {"name": kind.name, "color": kind.colour},
        },
    }


def _names(slides: Sequence[DrawnSlide]) -> dict[str, str]:
    """How the files of each slide begin, by its key."""
    stems = {slide.key: file_name(stem_of(Path(slide.name))) for slide in slides}
    counts = Counter(stem.casefold() for stem in stems.values())
    return {
        key: f"{stem}_{file_name(key[:6])}" if counts[stem.casefold()] > 1 else stem
        for key, stem in stems.items()
    }
