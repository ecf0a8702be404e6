"""The objects of a mask as a table, one row each: CSV, or GeoParquet where pyarrow is installed."""

import csv
import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genselfdiff.errors import OutputError
from genselfdiff.objects.measures import ObjectMeasures
from genselfdiff.objects.outlines import Outline
from genselfdiff.text import spreadsheet_cell

TABLE_SUFFIXES = (".csv", ".parquet")

_GEOMETRY = "geometry"
_POLYGON = 3
"""Its number in well-known binary."""
_GEO_PARQUET = {
    "version": "1.1.0",
    "primary_column": _GEOMETRY,
    "columns": {
        _GEOMETRY: {
            "encoding": "WKB",
            "geometry_types": ["Polygon"],
            "crs": None,  # no place on earth
            "edges": "planar",
        }
    },
}

_DIGITS = 4
"""After the point: a tenth of a nanometre, and a ten-thousandth of a pixel."""


class ObjectTable:
    """Writes a table batch by batch; use as a context manager.

    Columns: id, class, then in pixels (``_px``) and micrometres (``_um``) centroid, area,
    perimeter and equivalent diameter, in pixels the bounding box, and the eccentricity. See
    ``ObjectMeasures``. Without mpp, what would be in micrometres is empty. Parquet has the polygons
    as well, in a last column ``geometry``, as GeoParquet 1.1 has them: WKB in pixels of the mask.

    Args:
        path: the file to write; how it ends tells the format.
        mpp: micrometres per pixel.

    Raises:
        OutputError: pyarrow is not installed, but needed.
    """

    def __init__(self, path: Path, mpp: float | None) -> None:
        self._mpp = mpp
        make = _ParquetFile if path.suffix.lower() == ".parquet" else _CsvFile
        self._file: _CsvFile | _ParquetFile = make(path, list(_columns(None, [], [], mpp)))

    def __enter__(self) -> "ObjectTable":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(
        self,
        ids: Sequence[int],
        names: Sequence[str],
        outlines: Sequence[Outline],
        measures: ObjectMeasures,
    ) -> None:
        """Add a row for each object: its number, the name of its class, its measures."""
        self._file.write(_columns(measures, ids, names, self._mpp), outlines)


def check_table(path: Path) -> None:
    """Raise OutputError if no table can be written under this name."""
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise OutputError(f"{path}: must end in {' or '.join(TABLE_SUFFIXES)}: name it so")
    if path.suffix.lower() == ".parquet":
        _pyarrow(path)


def _columns(
    measures: ObjectMeasures | None, ids: Sequence[int], names: Sequence[str], mpp: float | None
) -> dict[str, Any]:
    """The columns in their order; without ``measures`` they are empty."""
    nothing = np.zeros(0)

    def of(name: str) -> NDArray[Any]:
        return nothing if measures is None else getattr(measures, name)

    def scaled(name: str, power: int = 1) -> NDArray[np.float64]:
        factor = np.nan if mpp is None else mpp**power
        return np.asarray(np.round(of(name) * factor, _DIGITS))

    return {
        "id": np.asarray(ids, np.int64),
        "class": list(names),
        "centroid_x_px": np.round(of("x"), _DIGITS),
        "centroid_y_px": np.round(of("y"), _DIGITS),
        "centroid_x_um": scaled("x"),
        "centroid_y_um": scaled("y"),
        "area_px": of("area").astype(np.int64),
        "area_um2": scaled("area", 2),
        "perimeter_px": of("perimeter").astype(np.int64),
        "perimeter_um": scaled("perimeter"),
        "equivalent_diameter_px": np.round(of("diameter"), _DIGITS),
        "equivalent_diameter_um": scaled("diameter"),
        "left_px": of("left").astype(np.int64),
        "top_px": of("top").astype(np.int64),
        "width_px": of("width").astype(np.int64),
        "height_px": of("height").astype(np.int64),
        "eccentricity": np.round(of("eccentricity"), _DIGITS),
    }


class _CsvFile:
    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._text = path.open("w", encoding="utf-8", newline="")
        self._rows = csv.writer(self._text, lineterminator="\n")
        self._rows.writerow(columns)

    def write(self, columns: dict[str, Any], outlines: Sequence[Outline]) -> None:
        lists = [_plain(column) for column in columns.values()]
        self._rows.writerows(zip(*lists, strict=True))

    def close(self) -> None:
        self._text.close()


def _plain(column: Any) -> list[Any]:
    """Numbers and text as they are written; empty where there is no number."""
    values = column.tolist() if isinstance(column, np.ndarray) else column
    if isinstance(column, np.ndarray) and np.isnan(column).any():
        return ["" if value != value else value for value in values]
    return list(map(spreadsheet_cell, values))


class _ParquetFile:
    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        pyarrow, parquet = _pyarrow(path)
        kinds: dict[str, Callable[[], Any]] = {"id": pyarrow.int64, "class": pyarrow.string}
        self._pyarrow = pyarrow
        fields = [
            (name, kinds.get(name, pyarrow.int64 if _is_whole(name) else pyarrow.float64)())
            for name in columns
        ]
        self._schema = pyarrow.schema(
            [*fields, (_GEOMETRY, pyarrow.binary())], {"geo": json.dumps(_GEO_PARQUET)}
        )
        self._file = parquet.ParquetWriter(path, self._schema)

    def write(self, columns: dict[str, Any], outlines: Sequence[Outline]) -> None:
        parts = (*columns.values(), [well_known_binary(outline) for outline in outlines])
        arrays = [
            self._pyarrow.array(column, field.type, from_pandas=True)  # what is no number is null
            for column, field in zip(parts, self._schema, strict=True)
        ]
        self._file.write_table(self._pyarrow.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        self._file.close()


def well_known_binary(outline: Outline) -> bytes:
    """An outline as a polygon of OGC Simple Features, little-endian, its coordinates float64."""
    head = struct.pack("<BII", 1, _POLYGON, len(outline.rings))
    rings = (
        struct.pack("<I", len(ring)) + np.asarray(ring, "<f8").tobytes() for ring in outline.rings
    )
    return head + b"".join(rings)


def _is_whole(name: str) -> bool:
    return name.endswith("_px") and not name.startswith(("centroid", "equivalent"))


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise OutputError(
            f"{path}: Parquet needs pyarrow: pip install 'genselfdiff[parquet]', or name a .csv"
        ) from error
    return pyarrow, parquet
