"""Measures of outlines against those that scikit-image takes from the pixels."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from skimage.measure import label, regionprops

from genselfdiff.errors import OutputError
from genselfdiff.masks import MaskWriter, PyramidShape
from genselfdiff.objects import write_objects
from genselfdiff.objects.measures import measure
from genselfdiff.objects.outlines import OutlineTracer


def blobs(height: int = 300, width: int = 400) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return (np.sin(x / 9) + np.sin(y / 13) + np.sin((x + y) / 37) > 1.1).astype(np.uint8)


def write(path: Path, mask: np.ndarray, mpp: float | None = 0.5) -> Path:
    with MaskWriter(
        path,
        PyramidShape(mask.shape[1], mask.shape[0], mpp, tile=64),
        palette=[(255, 255, 255), (200, 30, 31)],
        class_names=["background", "nu;cl,eus"],
    ) as writer:
        writer.write_rows(mask)
    return path


def test_measures_are_those_of_the_pixels() -> None:
    mask = blobs()
    mask[40:43, 60:90] = 0  # a hole, or a cut
    tracer = OutlineTracer(mask.shape[1])
    objects = [*tracer.push(mask), *tracer.finish()]
    measures = measure(objects)
    expected = {r.bbox: r for r in regionprops(label(mask, connectivity=1))}
    assert len(objects) == len(expected) > 10
    for i in range(len(objects)):
        left, top = int(measures.left[i]), int(measures.top[i])
        box = (top, left, top + int(measures.height[i]), left + int(measures.width[i]))
        region = expected.pop(box)
        assert measures.area[i] == region.area
        assert measures.y[i] == pytest.approx(region.centroid[0] + 0.5)
        assert measures.x[i] == pytest.approx(region.centroid[1] + 0.5)
        # Pixels are squares: each adds its own second moments.
        spread = np.cov(region.coords.T, bias=True) + np.eye(2) / 12
        low, high = np.linalg.eigvalsh(spread)
        assert measures.eccentricity[i] == pytest.approx(np.sqrt(1 - low / high))
        assert measures.diameter[i] == pytest.approx(region.equivalent_diameter_area)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def test_a_row_for_each_object(tmp_path: Path) -> None:
    mask = np.zeros((40, 50), np.uint8)
    mask[2:12, 4:24] = 1
    mask[30:34, 10:14] = 1
    path, table = write(tmp_path / "m.tif", mask), tmp_path / "m.csv"
    assert write_objects(path, table=table).counts == {"nu;cl,eus": 2}
    first, second = rows_of(table)
    assert first == {
        **{"id": "1", "class": "nu;cl,eus", "eccentricity": "0.866"},
        **{"centroid_x_px": "14.0", "centroid_y_px": "7.0"},
        **{"centroid_x_um": "7.0", "centroid_y_um": "3.5"},
        **{"area_px": "200", "area_um2": "50.0", "perimeter_px": "60", "perimeter_um": "30.0"},
        **{"equivalent_diameter_px": "15.9577", "equivalent_diameter_um": "7.9788"},
        **{"left_px": "4", "top_px": "2", "width_px": "20", "height_px": "10"},
    }
    assert (second["id"], second["eccentricity"]) == ("2", "0.0")
    write_objects(write(tmp_path / "no.tif", mask, None), table=table, overwrite=True)
    assert rows_of(table)[0]["area_um2"] == ""


def test_without_objects_there_is_a_head(tmp_path: Path) -> None:
    path = write(tmp_path / "m.tif", np.zeros((40, 50), np.uint8))
    write_objects(path, table=tmp_path / "m.csv")
    assert (tmp_path / "m.csv").read_text().startswith("id,class,centroid_x_px,")
    assert rows_of(tmp_path / "m.csv") == []


def test_parquet_is_the_same_table(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    for mpp in (0.5, None):
        path = write(tmp_path / "m.tif", blobs(), mpp)
        for name in ("m.csv", "m.parquet"):
            write_objects(path, table=tmp_path / name, overwrite=True)
        table = parquet.read_table(tmp_path / "m.parquet")
        assert str(table.schema.field("id").type) == "int64"
        assert str(table.schema.field("area_um2").type) == "double"
        told = [
            {name: "" if value is None else str(value) for name, value in row.items()}
            for row in table.drop_columns("geometry").to_pylist()
        ]
        assert told == rows_of(tmp_path / "m.csv")


def test_a_table_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "m.tif", blobs())
    with pytest.raises(OutputError, match=r"m\.xls: must end in \.csv or \.parquet"):
        write_objects(path, table=tmp_path / "m.xls")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(OutputError, match=r"m\.parquet: Parquet needs pyarrow: pip install"):
        write_objects(path, table=tmp_path / "m.parquet")
    assert {p.name for p in tmp_path.iterdir()} == {"m.tif"}
