"""Objects as GeoParquet, read by libraries that know nothing of gsd."""

import json
from pathlib import Path

import numpy as np
import pytest

from genselfdiff.masks import MaskWriter, PyramidShape
from genselfdiff.objects import write_objects

parquet = pytest.importorskip("pyarrow.parquet")
shapely = pytest.importorskip("shapely")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A table of two classes, one object with a hole, and GeoJSON of the same beside it."""
    labels = np.zeros((60, 80), np.uint8)
    labels[2:30, 4:40] = 1
    labels[10:15, 10:20] = 0
    labels[40:50, 50:70] = 2
    labels[50:55, 50:55] = 2
    path = tmp_path / "mask.tif"
    with MaskWriter(
        path,
        PyramidShape(80, 60, 0.5, tile=64),
        palette=[(255, 255, 255), (200, 30, 31), (9, 8, 250)],
        class_names=["ground", "gland", "fat"],
    ) as mask:
        mask.write_rows(labels)
    write_objects(path, geojson=tmp_path / "o.geojson", table=tmp_path / "o.parquet")
    return tmp_path / "o.parquet"


def test_its_polygons_are_those_of_geojson(written: Path) -> None:
    table = parquet.read_table(written)
    found = shapely.from_wkb(table["geometry"].to_pylist())
    told = json.loads(written.with_suffix(".geojson").read_text())["features"]
    expected = [shapely.geometry.shape(feature["geometry"]) for feature in told]
    assert all(a.equals_exact(b) for a, b in zip(found, expected, strict=True))
    assert [len(polygon.interiors) for polygon in found] == [1, 0]
    assert [polygon.area for polygon in found] == table["area_px"].to_pylist() == [958, 225]


def test_it_says_what_the_standard_wants(written: Path) -> None:
    told = json.loads(parquet.read_schema(written).metadata[b"geo"])
    assert (told["version"], told["primary_column"]) == ("1.1.0", "geometry")
    column = told["columns"]["geometry"]
    assert (column["encoding"], column["geometry_types"], column["crs"]) == (
        "WKB",
        ["Polygon"],
        None,
    )


def test_geopandas_reads_it(written: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    frame = geopandas.read_parquet(written)
    assert frame.crs is None
    assert frame["class"].tolist() == ["gland", "fat"]
    assert frame.geometry.area.tolist() == frame["area_px"].tolist()
    assert frame.total_bounds.tolist() == [4, 2, 70, 55]
