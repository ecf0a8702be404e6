"""Labelbox: polygons in the JSON or NDJSON that it exports, whose images lie in a folder."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genselfdiff.data.importers import Import
from genselfdiff.data.importers.files import images_below, picture
from genselfdiff.data.labelled_folder import LabelledField, require_names
from genselfdiff.data.naming import name_some
from genselfdiff.data.polygons import (
    FEW_VERTICES,
    Points,
    Region,
    draw,
    has_area,
    warn_of_left_out,
    warn_of_outside,
)
from genselfdiff.errors import InputError, one_line

logger = logging.getLogger("genselfdiff")

Outlines = list[tuple[str, Points]]
"""Class and vertices of each polygon."""


def read_labelbox(export: Path, images: Path, classes: Sequence[str] | None = None) -> Import:
    """Read the polygons of an export, drawn one over the other in its order.

    It has an entry for each image, in a list or line by line. In the newer form (NDJSON) that is
    ``{"data_row": {"external_id": "a.png"}, "projects": {...: {"labels": [{"annotations":
    {"objects": [{"name": "tumor", "polygon": [{"x": ..., "y": ...}, ...]}]}}]}}}``; without an
    ``external_id``, ``global_key`` names the image. In the older form it has ``External ID`` and
    ``Label``: polygons by class, ``{"tumor": [{"geometry": [...]}]}``, or ``{"objects": [{"value":
    "tumor", "polygon": [...]}]}``, or a word such as Skip. Images that nobody labelled, or
    whose objects are all no polygons, are left out, and so is every other object that is none; a
    warning tells them. Pixels are counted from 1.

    Args:
        export: the .json or .ndjson.
        images: folder of the images.
        classes: the names to take, in the order of their indices, without background; None: all
            there are, by the alphabet.

    Raises:
        InputError: the export is none, names other classes, or an image is not there; on iterating:
            an image cannot be read.
    """
    labelled = _read(export)
    found = sorted({name for outlines in labelled.values() for name, _ in outlines})
    names = ["background", *(found if classes is None else classes)]
    missing = sorted(set(found) - set(names))
    if missing:
        raise InputError(f"{export}: has the classes {', '.join(missing)} too: name all to take")
    require_names(names, export)
    files = images_below(images)
    by_name = {path.name: path for path in files.values()} | files
    lost = [name for name in labelled if name not in by_name and Path(name).stem not in files]
    if lost:
        raise InputError(f"{images}: the images {name_some(lost)} of {export} are not there")
    paths = {name: by_name.get(name) or files[Path(name).stem] for name in labelled}
    return Import(names, len(paths), _fields(paths, labelled, names, export))


def _fields(
    paths: Mapping[str, Path], labelled: Mapping[str, Outlines], names: Sequence[str], export: Path
) -> Iterator[LabelledField]:
    for name, path in paths.items():
        pixels, (height, width) = picture(path)
        regions = [Region(names.index(kind), (points,)) for kind, points in labelled[name]]
        warn_of_outside(regions, height, width, path)
        classes, instances = draw(regions, height, width)
        yield LabelledField(path.stem, pixels, classes, instances, None, export)


def _read(export: Path) -> dict[str, Outlines]:
    """The outlines of each image that was labelled."""
    labelled: dict[str, Outlines] = {}
    skipped, other, lines = [], 0, 0
    for number, entry in enumerate(_entries(export), start=1):
        name = f"image {number}"
        try:
            name, objects = _objects(entry)
            polygons = [(kind.strip(), _points(shape)) for kind, shape in objects or () if shape]
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else one_line(error)
            raise InputError(
                f"{export}: {name} is not as in an export of polygons from Labelbox: {reason}"
            ) from error
        other += len(objects or ()) - len(polygons)
        if objects is None or (objects and not polygons):
            skipped.append(name)
            continue
        if name in labelled:
            raise InputError(f"{export}: labels {name} twice: export one label of each image")
        labelled[name] = [(kind, points) for kind, points in polygons if has_area(points)]
        lines += len(polygons) - len(labelled[name])
    if skipped:
        logger.warning("%s: without polygons, left out: %s", export, name_some(skipped))
    warn_of_left_out(export, {"that are no polygons": other, FEW_VERTICES: lines})
    if not labelled:
        raise InputError(f"{export}: holds no labelled image")
    return labelled


def _entries(export: Path) -> list[Any]:
    """The entries of a JSON list, or of lines of JSON."""
    try:
        text = export.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{export}: cannot be read: {one_line(error)}") from error
    try:
        content = json.loads(text)
    except ValueError as error:
        return _lines(export, text, whole=error)
    return content if isinstance(content, list) else [content]


def _lines(export: Path, text: str, whole: ValueError) -> list[Any]:
    """Lines of JSON; ``whole`` is what is wrong with the text as one."""
    entries: list[Any] = []
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            entries += [json.loads(line)] if line.strip() else []
        except ValueError as error:
            reason = f"line {number}: {one_line(error)}" if entries else one_line(whole)
            raise InputError(f"{export}: is no JSON or NDJSON: {reason}") from error
    return entries


def _objects(entry: Mapping[str, Any]) -> tuple[str, list[tuple[str, Any]] | None]:
    """Name of an image, and class and polygon of each object, None for another shape.

    Instead of the objects there is None where nobody labelled the image.

    Raises:
        ValueError: it has several labels.
    """
    if "data_row" in entry:
        row = entry["data_row"]
        name = str(row.get("external_id") or row["global_key"])
        labels = [
            label
            for project in entry["projects"].values()
            for label in project["labels"]
            if not label.get("performance_details", {}).get("skipped")
        ]
        if not labels:
            return name, None
        if len(labels) > 1:
            raise ValueError(f"{name} has {len(labels)} labels: export one of each image")
        items = labels[0]["annotations"]["objects"]
        return name, [(str(item["name"]), item.get("polygon")) for item in items]
    name, label = str(entry["External ID"]), entry["Label"]
    if isinstance(label, str):
        return name, None
    if "objects" in label:
        items = label["objects"]
        return name, [(str(i.get("value") or i["title"]), i.get("polygon")) for i in items]
    by_class = [(str(kind), item["geometry"]) for kind, items in label.items() for item in items]
    return name, [(kind, shape if isinstance(shape, list) else None) for kind, shape in by_class]


def _points(vertices: Sequence[Mapping[str, float]]) -> Points:
    points = np.array([(float(v["x"]), float(v["y"])) for v in vertices], np.float64).reshape(-1, 2)
    if not np.isfinite(points).all():
        raise ValueError("a vertex without a place")
    return points - 0.5  # the centre of the first pixel is (1, 1)
