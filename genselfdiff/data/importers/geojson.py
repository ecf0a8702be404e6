"""Annotations in GeoJSON, as QuPath and TIAToolbox export them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genselfdiff.data.importers.left_out import FEW_VERTICES, NO_CLASS, LeftOut
from genselfdiff.data.polygons import NO_PLACES, Points, has_area, outline
from genselfdiff.errors import InputError
from genselfdiff.input_files import read_json

_OLD_CELL = "PathCellObject"
"""What older versions of QuPath give cells as their id, for want of an object type."""


@dataclass(frozen=True)
class Annotation:
    """An object with a class.

    Attributes:
        name: of the class, as QuPath shows it: ``Tumor: Positive`` for a derived one.
        polygons: its parts as a `Region` has them, in pixels of level 0.
        has_nucleus: it is a cell with a nucleus of its own.
    """

    name: str
    polygons: tuple[tuple[Points, ...], ...]
    has_nucleus: bool


@dataclass(frozen=True)
class Annotated:
    """What a file holds.

    Attributes:
        annotations: those that can be used.
        odd: how many others there are of each class.
    """

    annotations: Sequence[Annotation]
    odd: Mapping[str, int]


def read_geojson(path: Path, left_out: LeftOut, *, nuclei: bool = False) -> Annotated:
    """Read a collection or list of features, or a single one.

    Args:
        path: the file.
        left_out: gets those without a class, those that are no areas, and odd ones.
        nuclei: of cells, take the nuclei.

    Raises:
        InputError: the file cannot be read, or is no GeoJSON.
    """
    annotations, odd, lost = [], Counter[str](), Counter[str]()
    for feature in _features(path):
        name = _class_name(feature)
        try:
            annotations.append(_annotation(feature, name, nuclei))
        except InputError as error:
            lost[str(error)] += 1
            odd[name] += 1
    left_out.tell(path, "outlines", lost)
    return Annotated(annotations, odd)


def _features(path: Path) -> list[Any]:
    """What is in a file, and in the collections in it, in their order."""
    content = read_json(path)
    if isinstance(content, dict):
        content = content.get("features", [content] if "geometry" in content else None)
    if not isinstance(content, list):
        raise InputError(f"{path}: is no GeoJSON of QuPath: it has no features")
    features: list[Any] = []
    pending = content[::-1]
    while pending:
        each = pending.pop()
        inside = _entry(each, "features")
        if isinstance(inside, list):
            pending += reversed(inside)
        else:
            features.append(each)
    return features


def _class_name(feature: Any) -> str:
    """Name of the class, empty where there is none."""
    properties = _entry(feature, "properties")
    kind = _entry(properties, "classification")
    name = kind if isinstance(kind, str) else _entry(kind, "name")
    if name is None:
        names = _entry(kind, "names")
        parts = names if isinstance(names, list) else []
        name = ": ".join(parts) if parts and all(isinstance(part, str) for part in parts) else None
    if name is None and _is_of_tiatoolbox(feature):
        name = str(properties["type"])
    return name.strip() if isinstance(name, str) else ""


def _is_of_tiatoolbox(feature: Any) -> bool:
    """Whether it tells its class as TIAToolbox does, by name or number."""
    kind = _entry(_entry(feature, "properties"), "type")
    return isinstance(kind, str | int) and not isinstance(kind, bool)


def _annotation(feature: Any, name: str, nuclei: bool) -> Annotation:
    """Raise InputError, saying what is wrong with it, where a feature is no area with a class."""
    nucleus = _entry(feature, "nucleusGeometry")
    properties = _entry(feature, "properties")
    kinds = (_entry(properties, "objectType"), _entry(properties, "object_type"))
    is_cell = nucleus is not None or "cell" in kinds or _entry(feature, "id") == _OLD_CELL
    if nuclei and is_cell and nucleus is None:
        raise InputError("that are cells without a nucleus")
    geometry = _entry(feature, "geometry")
    plane = _entry(geometry, "plane")
    if any(_entry(plane, axis) not in (None, 0) for axis in "zt"):
        raise InputError("in other planes of a stack")
    shapes = _shapes(nucleus if nuclei and is_cell else geometry)
    if not shapes:
        raise InputError("that are no areas")
    if not name:
        raise InputError(NO_CLASS)
    # Outlines of TIAToolbox lead through the centres of an object's outermost pixels.
    to_corner = 0.5 if _is_of_tiatoolbox(feature) else 0.0
    polygons = [tuple(outline(ring) + to_corner for ring in rings) for rings in shapes if rings]
    polygons = [rings for rings in polygons if has_area(rings[0])]
    if not polygons:
        raise InputError(FEW_VERTICES)
    return Annotation(name, tuple(polygons), nucleus is not None)


def _shapes(geometry: Any) -> list[list[Any]]:
    """The polygons of a geometry, lists of rings: all that it has together are one object."""
    found: list[list[Any]] = []
    pending = [geometry]
    while pending:
        each = pending.pop()
        kind, inside = _entry(each, "type"), _entry(each, "coordinates")
        if kind == "Polygon":
            found.append(_list(inside))
        elif kind == "MultiPolygon":
            found += map(_list, _list(inside))
        elif kind == "GeometryCollection":
            pending += _list(_entry(each, "geometries"))
    return found


def _entry(content: Any, key: str) -> Any:
    return content.get(key) if isinstance(content, dict) else None


def _list(content: Any) -> list[Any]:
    """Raise InputError, which says what is wrong, where it is none."""
    if not isinstance(content, list):
        raise InputError(NO_PLACES)
    return content
