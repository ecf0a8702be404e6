"""Labelbox: polygons in the JSON or NDJSON that it exports, whose images lie in a folder."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genselfdiff.data.importers import Import
from genselfdiff.data.importers.files import images_below
from genselfdiff.data.importers.left_out import FEW_VERTICES, NO_CLASS, LeftOut, told
from genselfdiff.data.importers.outlined import NamedImages, Outlined, Polygons, import_outlined
from genselfdiff.data.polygons import has_area, outline
from genselfdiff.errors import InputError, one_line
from genselfdiff.input_files import parse_json, read_text

Objects = list[tuple[str, Polygons]]
"""Class and polygon of each."""


_UNLABELLED = "without polygons"
_NO_FILE = "that are not in the folder"
_TWICE = "with several labels: export one of each image"
_ODD = "that are not as in an export of polygons"


def read_labelbox(export: Path, images: Path, classes: Sequence[str] | None = None) -> Import:
    """Read the polygons of an export, drawn one over the other in its order.

    It has an entry for each image, in a list or line by line. In the newer form (NDJSON) that is
    ``{"data_row": {"external_id": "a.png"}, "projects": {...: {"labels": [{"annotations":
    {"objects": [{"name": "tumor", "polygon": [{"x": ..., "y": ...}, ...]}]}}]}}}``; without an
    ``external_id``, ``global_key`` names the image. In the older form it has ``External ID`` and
    ``Label``: polygons by class, ``{"tumor": [{"geometry": [...]}]}``, or ``{"objects": [{"value":
    "tumor", "polygon": [...]}]}``, or a word such as Skip. Left out are images that nobody
    labelled, whose objects are all no polygons, that have several labels or are not in the folder,
    and every other object that is no polygon. Pixels are counted from 1.

    Args:
        export: the .json or .ndjson.
        images: folder of the images.
        classes: the names to take, in the order of their indices, without background; None: all
            there are, by the alphabet.

    Raises:
        InputError: the export is none, has no image that can be used, or other classes than those
            to take; on iterating: no image can be read.
    """
    left_out = LeftOut()
    labelled = _read(export, NamedImages(images_below(images)), left_out)
    return import_outlined(labelled, classes, export, left_out)


def _read(export: Path, files: NamedImages, left_out: LeftOut) -> dict[Path, Outlined]:
    """The outlines of each image that was labelled."""
    labelled: defaultdict[Path, list[Outlined]] = defaultdict(list)
    images: defaultdict[str, list[str]] = defaultdict(list)
    lost: Counter[str] = Counter()
    for number, entry in enumerate(_entries(export, left_out), start=1):
        name = f"entry {number}"
        try:
            name = _name(entry)
            labels = _labels(entry)
            objects = _objects(labels[0]) if labels else []
            media = entry.get("media_attributes") or {}
            size = (media.get("width"), media.get("height"))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else one_line(error)
            images[_ODD].append(f"{name}: {reason}")
            continue
        path = files.find(name)
        outlines = _outlines(objects, lost)
        if not labels or (objects and not outlines):
            images[_UNLABELLED].append(name)
        elif path is None:
            images[_NO_FILE].append(name)
        elif len(labels) > 1:
            images[_TWICE].append(name)
        else:
            labelled[path].append(Outlined(outlines, size))
    images[_TWICE] += [path.name for path, labels in labelled.items() if len(labels) > 1]
    if all(len(labels) > 1 for labels in labelled.values()):
        reasons = told({**images, **lost}) or "it has no entry"
        raise InputError(f"{export}: holds no labelled image that can be used: {reasons}")
    left_out.tell(export, "images", images)
    left_out.tell(export, "outlines", lost)
    return {path: labels[0] for path, labels in labelled.items() if len(labels) == 1}


def _entries(export: Path, left_out: LeftOut) -> list[Any]:
    """The entries of a JSON list, or of lines of JSON."""
    text = read_text(export)
    try:
        content = parse_json(text, export)
    except InputError as error:
        return _lines(export, text, left_out, whole=error)
    return content if isinstance(content, list) else [content]


def _lines(export: Path, text: str, left_out: LeftOut, whole: InputError) -> list[Any]:
    """Lines of JSON; ``whole`` is what is wrong with the text as one."""
    entries: list[Any] = []
    damaged = []
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            entries += [parse_json(line, export)] if line.strip() else []
        except InputError:
            damaged.append(f"line {number}")
    if not any(isinstance(entry, dict) for entry in entries):
        raise whole
    left_out.tell(export, "lines", {"that are not JSON": damaged})
    return entries


def _name(entry: Mapping[str, Any]) -> str:
    if "data_row" in entry:
        row = entry["data_row"]
        name = row.get("external_id") or row["global_key"]
    else:
        name = entry["External ID"]
    if not isinstance(name, str):
        raise ValueError(f"{name} is no name of an image")
    return name


def _labels(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What people have drawn on an image, each time that it was labelled."""
    if "data_row" not in entry:
        label = entry["Label"]
        return [] if label is None or isinstance(label, str) else [label]
    return [
        label["annotations"]
        for project in (entry["projects"] or {}).values()
        for label in project.get("labels") or ()
        if not (label.get("performance_details") or {}).get("skipped")
    ]


def _objects(label: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """Class and polygon of each object, and None for another shape, or the answer to a question."""
    if "objects" in label:
        items = [item if isinstance(item, dict) else {} for item in label["objects"] or ()]
        keys = ("name", "value", "title")
        kinds = [next((item[key] for key in keys if item.get(key)), None) for item in items]
        return [(kind, item.get("polygon")) for kind, item in zip(kinds, items, strict=True)]
    found: list[tuple[Any, Any]] = []
    for kind, items in label.items():
        if isinstance(items, list):
            shapes = [item.get("geometry") if isinstance(item, dict) else None for item in items]
            found += [(kind, shape) for shape in shapes]
        else:
            found.append((kind, None))
    return found


def _outlines(objects: Sequence[tuple[Any, Any]], lost: Counter[str]) -> Objects:
    """The polygons among them; ``lost`` counts the others."""
    outlines = []
    for kind, shape in objects:
        try:
            outlines.append(_outline(kind, shape))
        except InputError as error:
            lost[str(error)] += 1
    return outlines


def _outline(kind: Any, shape: Any) -> tuple[str, Polygons]:
    """Raise InputError, saying what is wrong with it, where it is no polygon with a class."""
    if not isinstance(shape, list) or not shape:
        raise InputError("that are no polygons")
    if not isinstance(kind, str) or not kind.strip():
        raise InputError(NO_CLASS)
    pairs = [(v.get("x"), v.get("y")) if isinstance(v, dict) else () for v in shape]
    points = outline(pairs) - 0.5  # the centre of the first pixel is (1, 1)
    if not has_area(points):
        raise InputError(FEW_VERTICES)
    return kind.strip(), ((points,),)
