"""The objects of a mask as GeoJSON, as QuPath imports and exports it."""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from genselfdiff.errors import InputError, OutputError
from genselfdiff.files import atomic_file, refuse_existing
from genselfdiff.slides.mask_reader import MaskReader
from genselfdiff.slides.outlines import Outline, OutlineTracer
from genselfdiff.slides.resolution import check_mpp

Uint8 = NDArray[np.uint8]

SUFFIXES = (".geojson", ".json")

_PIXELS_TRACED = 2**20
"""Taken at once, but ``_LEAST_ROWS``: fewer cut more objects, more take more memory."""

_LEAST_ROWS = 64


def write_geojson(
    mask: str | Path,
    output: str | Path,
    *,
    min_area: float = 0.0,
    mpp: float | None = None,
    overwrite: bool = False,
) -> dict[str, int]:
    """Write the objects of a mask as a GeoJSON FeatureCollection that QuPath opens.

    An object is what hangs together of a class other than 0 by the sides of pixels. Its polygon
    follows the pixels' edges, with holes, in pixels of the mask, which are level-0 pixels of the
    slide; the area of the polygon is that of the pixels. Each is an annotation with its class, the
    class's colour, area and perimeter in um2 and um, or in pixels without mpp. Features are written
    while the mask is read: memory follows its width and the objects that are not yet ended.

    Args:
        mask: the mask, see ``MaskReader``.
        output: the file to write, a .geojson or .json; appears whole or not at all.
        min_area: in um2, or in pixels without mpp; holes that are smaller are filled, then objects
            that are smaller are left out.
        mpp: micrometres per pixel, believed more than the mask.
        overwrite: replace ``output`` if it exists.

    Returns:
        The number of objects of each class but the first.

    Raises:
        InputError: the mask cannot be read, or ``min_area`` or ``mpp`` is out of range.
        OutputError: ``output`` exists, is the mask or cannot be written.
    """
    output = Path(output)
    check_min_area(min_area)
    if mpp is not None:
        check_mpp(mpp)
    if output.suffix.lower() not in SUFFIXES:
        raise OutputError(f"{output}: must end in {' or '.join(SUFFIXES)}: name it so")
    refuse_existing(output, overwrite)
    with MaskReader(mask) as reader:
        if output.exists() and output.samefile(mask):
            raise OutputError(f"{output}: is the mask: name another file")
        mpp = reader.mpp if mpp is None else mpp
        names = Counter({name: 0 for name in reader.class_names[1:]})
        pixels = min_area if mpp is None else min_area / mpp**2
        with atomic_file(output) as temporary, temporary.open("wb") as file:
            separator = b'{"type":"FeatureCollection","features":[\n'
            for outline in _outlines(reader, pixels):
                feature = _feature(outline, reader, mpp)
                file.write(separator)
                file.write(orjson.dumps(feature, option=orjson.OPT_SERIALIZE_NUMPY))
                separator = b",\n"
                names[feature["properties"]["classification"]["name"]] += 1
            file.write(b"\n]}\n" if separator == b",\n" else separator + b"]}\n")
    return dict(names)


def check_min_area(min_area: float) -> None:
    """Raise InputError unless ``min_area`` is a number that is not negative."""
    if not (math.isfinite(min_area) and min_area >= 0):
        raise InputError(f"smallest area {min_area:g} must be 0 or more")


def _outlines(reader: MaskReader, min_area: float) -> Iterator[Outline]:
    tracer = OutlineTracer(reader.width, min_area)
    for rows in _regrouped(reader.bands(), max(_LEAST_ROWS, _PIXELS_TRACED // reader.width)):
        yield from tracer.push(rows)
    yield from tracer.finish()


def _regrouped(bands: Iterator[Uint8], rows: int) -> Iterator[Uint8]:
    """Join short bands and cut long ones to about as many rows."""
    waiting: list[Uint8] = []
    for band in bands:
        for y in range(0, len(band), rows):
            waiting.append(band[y : y + rows])
            if sum(map(len, waiting)) >= rows:
                yield np.concatenate(waiting)
                waiting = []
    if waiting:
        yield np.concatenate(waiting)


def _feature(outline: Outline, reader: MaskReader, mpp: float | None) -> dict[str, Any]:
    """One feature; the names of measurements are QuPath's own."""
    label = outline.label
    named = label < len(reader.class_names)
    classification: dict[str, Any] = {
        "name": reader.class_names[label] if named else f"class {label}"
    }
    if label < len(reader.palette):
        classification["color"] = reader.palette[label]
    if mpp is None:
        measurements: dict[str, float] = {
            "Area px^2": outline.area,
            "Perimeter px": outline.perimeter,
        }
    else:
        measurements = {
            "Area \u00b5m^2": round(outline.area * mpp**2, 4),
            "Perimeter \u00b5m": round(outline.perimeter * mpp, 4),
        }
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": outline.rings},
        "properties": {
            "objectType": "annotation",
            "classification": classification,
            "measurements": measurements,
        },
    }
