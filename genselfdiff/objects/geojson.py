"""The objects of a mask as GeoJSON, as QuPath imports and exports it."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from genselfdiff.masks import MaskReader
from genselfdiff.objects.measures import ObjectMeasures
from genselfdiff.objects.outlines import Outline

SUFFIXES = (".geojson", ".json")

_DIGITS = 4
"""After the point, of measurements."""


class GeoJsonWriter:
    """Writes a FeatureCollection that QuPath opens, batch by batch; use as a context manager.

    Each object is a feature: a polygon with holes in pixels of the mask, which are level-0 pixels
    of the slide, with class, the class's colour and measurements in um and um2, or in pixels
    without mpp. The measurement ``gsd id`` is the object's number, as in tables.

    Args:
        path: the file to write.
        mask: what names and colours of classes are taken from.
        mpp: micrometres per pixel.
        detections: QuPath's type of object for what comes in great numbers and is not edited by
            hand, such as nuclei; else annotations.
    """

    def __init__(self, path: Path, mask: MaskReader, mpp: float | None, detections: bool) -> None:
        self._file = path.open("wb")
        self._mask = mask
        self._mpp = mpp
        self._type = b"detection" if detections else b"annotation"
        self._classes: dict[int, bytes] = {}
        self._before = b'{"type":"FeatureCollection","features":[\n'

    def __enter__(self) -> "GeoJsonWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._file:
            if error is None:
                end = b"\n]}\n" if self._before == b",\n" else self._before + b"]}\n"
                self._file.write(end)

    def write(
        self, ids: Sequence[int], outlines: Sequence[Outline], measures: ObjectMeasures
    ) -> None:
        """Add a feature for each object."""
        parts = []
        for outline, numbers in zip(outlines, self._measurements(ids, measures), strict=True):
            parts += [
                self._before,
                b'{"type":"Feature","geometry":{"type":"Polygon","coordinates":',
                orjson.dumps(outline.rings, option=orjson.OPT_SERIALIZE_NUMPY),
                b'},"properties":{"objectType":"',
                self._type,
                b'","classification":',
                self._classes.get(outline.label) or self._classification(outline.label),
                b',"measurements":',
                orjson.dumps(numbers),
                b"}}",
            ]
            self._before = b",\n"
        self._file.write(b"".join(parts))

    def _measurements(
        self, ids: Sequence[int], measures: ObjectMeasures
    ) -> list[dict[str, float | int]]:
        """Area and perimeter have QuPath's own names."""
        if self._mpp is None:
            factor, square, unit = 1.0, "px^2", "px"
        else:
            factor, square, unit = self._mpp, "\u00b5m^2", "\u00b5m"
        names = (
            "gsd id",
            f"Area {square}",
            f"Perimeter {unit}",
            f"Equivalent diameter {unit}",
            "Eccentricity",
        )
        columns = (
            list(ids),
            (measures.area * factor**2).round(_DIGITS).tolist(),
            (measures.perimeter * factor).round(_DIGITS).tolist(),
            (measures.diameter * factor).round(_DIGITS).tolist(),
            measures.eccentricity.round(_DIGITS).tolist(),
        )
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def _classification(self, label: int) -> bytes:
        told: dict[str, Any] = {"name": self._mask.name_of(label)}
        if label < len(self._mask.palette):
            told["color"] = self._mask.palette[label]
        self._classes[label] = orjson.dumps(told)
        return self._classes[label]
