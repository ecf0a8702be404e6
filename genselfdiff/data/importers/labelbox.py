"""Labelbox: polygons in the JSON that it exports, whose images lie in a folder."""

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
from genselfdiff.data.polygons import Points, Region, draw
from genselfdiff.errors import InputError, one_line

logger = logging.getLogger("genselfdiff")

Outlines = list[tuple[str, Points]]
"""Class and vertices of each polygon."""


def read_labelbox(export: Path, images: Path, classes: Sequence[str] | None = None) -> Import:
    """Read the polygons of an export, drawn one over the other in its order.

    It is a list of objects with ``External ID``, the name of the image's file, and ``Label``:
    polygons by class, ``{"tumor": [{"geometry": [{"x": ..., "y": ...}, ...]}]}``, or
    ``{"objects": [{"value": "tumor", "polygon": [...]}]}``, or a word such as Skip for images that
    nobody labelled, which are left out. Pixels are counted from 1.

    Args:
        export: the .json.
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
    require_names(names)
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
        classes, instances = draw(regions, height, width)
        yield LabelledField(path.stem, pixels, classes, instances, None, export)


def _read(export: Path) -> dict[str, Outlines]:
    """The outlines of each image that was labelled."""
    try:
        entries = json.loads(export.read_text(encoding="utf-8"))
        labelled, skipped = {}, 0
        for entry in entries:
            label = entry["Label"]
            if isinstance(label, str):
                skipped += 1
                continue
            labelled[str(entry["External ID"])] = list(_outlines(label))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else one_line(error)
        raise InputError(f"{export}: is no export of polygons from Labelbox: {reason}") from error
    if skipped:
        logger.info("%s: %d images that nobody labelled are left out", export, skipped)
    if not labelled:
        raise InputError(f"{export}: holds no labelled image")
    return labelled


def _outlines(label: Mapping[str, Any]) -> Iterator[tuple[str, Points]]:
    if "objects" in label:
        for item in label["objects"]:
            yield str(item.get("value") or item["title"]).strip(), _points(item["polygon"])
        return
    for name, items in label.items():
        for item in items:
            yield name.strip(), _points(item["geometry"])


def _points(vertices: Sequence[Mapping[str, float]]) -> Points:
    points = np.array([(float(v["x"]), float(v["y"])) for v in vertices], np.float64).reshape(-1, 2)
    return points - 0.5  # the centre of the first pixel is (1, 1)
