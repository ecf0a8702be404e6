"""Objects that touch, taken apart; and that only they themselves decide what becomes of them."""

import csv
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from genselfdiff.errors import InputError
from genselfdiff.masks import MaskWriter, PyramidShape
from genselfdiff.objects import instances, mask_objects, write_objects
from genselfdiff.objects.instances import InstanceSplitter, seed_distance_in_pixels
from genselfdiff.objects.outlines import Outline, OutlineTracer

PALETTE = [(255, 255, 255), (200, 30, 31), (32, 30, 200)]


def discs(*centres: tuple[float, float, float], size: tuple[int, int] = (80, 120)) -> np.ndarray:
    """Discs of (y, x, radius), all class 1."""
    y, x = np.mgrid[: size[0], : size[1]]
    return np.any([np.hypot(y - a, x - b) <= r for a, b, r in centres], axis=0).astype(np.uint8)


def cells(size: int = 500, seed: int = 0) -> np.ndarray:
    """Many round cells of two classes, of which half touch others; with ragged edges."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((size, size), np.uint8)
    y, x = np.mgrid[:size, :size]
    for _ in range(size * size // 700):
        a, b = rng.uniform(0, size, 2)
        mask[np.hypot(y - a, (x - b) * rng.uniform(0.6, 1)) < rng.uniform(5, 11)] = rng.choice(
            [1, 1, 2]
        )
    mask[(rng.random(mask.shape) < 0.05) & ndimage.binary_dilation(mask == 0)] = 0
    return mask


def objects_of(mask: np.ndarray) -> list[Outline]:
    tracer = OutlineTracer(mask.shape[1])
    return [*tracer.push(mask), *tracer.finish()]


def split(mask: np.ndarray, distance: float = 6) -> list[Outline]:
    splitter = InstanceSplitter(distance)
    return [*splitter.push(objects_of(mask)), *splitter.finish()]


def plain(found: list[Outline]) -> list[object]:
    return [(o.label, o.area, o.perimeter, [r.tolist() for r in o.rings]) for o in found]


def write(path: Path, mask: np.ndarray, mpp: float | None = 0.25) -> Path:
    shape = PyramidShape(mask.shape[1], mask.shape[0], mpp, tile=64)
    names = ["background", "nucleus", "stroma"]
    with MaskWriter(path, shape, palette=PALETTE, class_names=names) as writer:
        writer.write_rows(mask)
    return path


def test_two_discs_that_touch_are_two() -> None:
    mask = discs((40, 40, 15), (40, 66, 15))
    assert len(objects_of(mask)) == 1
    left, right = split(mask)
    assert left.rings[0][:, 0].max() == right.rings[0][:, 0].min() + 1 or (
        abs(int(left.rings[0][:, 0].max()) - 53) <= 1
    )
    assert abs(left.area - right.area) < 0.05 * left.area
    assert left.area + right.area == np.count_nonzero(mask)


@pytest.mark.parametrize(
    "mask",
    [
        discs((40, 60, 25)),
        discs((40, 40, 20), (40, 46, 20)),  # one thick object with two ends
        np.pad(np.ones((9, 80), np.uint8), 20),  # long, but nowhere thinner
        np.pad(np.ones((1, 1), np.uint8), 3),
    ],
)
def test_what_has_no_neck_stays_whole(mask: np.ndarray) -> None:
    assert plain(split(mask)) == plain(objects_of(mask))


def test_three_in_a_row_and_others_around() -> None:
    mask = discs((20, 20, 10), (20, 38, 10), (20, 56, 10), (60, 20, 10), (60, 90, 14))
    assert len(objects_of(mask)) == 3
    assert len(split(mask)) == 5


def test_the_pieces_are_the_mask() -> None:
    shapely = pytest.importorskip("shapely")
    mask = cells()
    found = split(mask)
    assert len(found) > 1.1 * len(objects_of(mask))
    for label in (1, 2):
        polygons = [shapely.Polygon(o.rings[0], o.rings[1:]) for o in found if o.label == label]
        assert all(polygon.is_valid for polygon in polygons)
        area = np.count_nonzero(mask == label)
        # Without overlaps, and nothing left out.
        assert sum(polygon.area for polygon in polygons) == area
        assert shapely.unary_union(polygons).area == area
    for outline in found:
        polygon = shapely.Polygon(outline.rings[0], outline.rings[1:])
        assert (polygon.area, polygon.length) == (outline.area, outline.perimeter)


@pytest.mark.parametrize("sheet", [1, 5000, 2**30])
def test_no_object_depends_on_its_neighbours(sheet: int, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = cells(300, seed=2)
    expected = plain(split(mask))
    monkeypatch.setattr(instances, "_SHEET", sheet)
    assert plain(split(mask)) == expected
    # Nor on where they lie.
    moved = split(np.pad(mask, ((37, 0), (11, 5))))
    shift = np.array([11, 37])
    back = [(o.label, o.area, o.perimeter, [(r - shift).tolist() for r in o.rings]) for o in moved]
    assert back == expected


@pytest.mark.parametrize("pixels", [1, 16 * 500])
def test_files_do_not_depend_on_bands(
    tmp_path: Path, pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "m.tif", cells())
    for name in ("whole", "cut"):
        files = {"geojson": tmp_path / f"{name}.geojson", "table": tmp_path / f"{name}.csv"}
        counted = write_objects(path, instances=True, **files)
        monkeypatch.setattr(mask_objects, "_PIXELS_TRACED", pixels)
        monkeypatch.setattr(mask_objects, "_LEAST_ROWS", 1)
        monkeypatch.setattr(instances, "_SHEET", 3000)
    for end in ("geojson", "csv"):
        whole, cut = (tmp_path / f"{name}.{end}" for name in ("whole", "cut"))
        assert whole.read_bytes() == cut.read_bytes()
    shape = pytest.importorskip("shapely.geometry").shape
    features = json.loads((tmp_path / "cut.geojson").read_bytes())["features"]
    with (tmp_path / "cut.csv").open() as text:
        rows = list(csv.DictReader(text))
    assert len(features) == len(rows) == sum(counted.counts.values())
    for number, (feature, row) in enumerate(zip(features, rows, strict=True), 1):
        polygon = shape(feature["geometry"])
        properties = feature["properties"]
        assert properties["objectType"] == "detection"
        assert properties["measurements"]["gsd id"] == int(row["id"]) == number
        assert properties["classification"]["name"] == row["class"]
        assert polygon.is_valid and polygon.area == int(row["area_px"])
        assert polygon.centroid.x == pytest.approx(float(row["centroid_x_px"]), abs=1e-4)
        assert polygon.centroid.y == pytest.approx(float(row["centroid_y_px"]), abs=1e-4)


def test_holes_stay_and_small_pieces_go(tmp_path: Path) -> None:
    mask = discs((40, 40, 15), (40, 66, 15))
    mask[38:42, 30:34] = 0
    assert sorted(len(o.rings) for o in split(mask)) == [1, 2]
    small = discs((40, 40, 15), (40, 61, 7))
    assert [len(split(small)), len(objects_of(small))] == [2, 1]
    path = write(tmp_path / "m.tif", small, None)
    options = {"instances": True, "seed_distance": 6.0}
    assert write_objects(path, **options).counts["nucleus"] == 2
    assert write_objects(path, min_area=200, **options).counts["nucleus"] == 1


@pytest.mark.parametrize("mpp", [None, 0.25])
def test_specks_are_no_objects_where_objects_are_taken_apart(
    tmp_path: Path, mpp: float | None
) -> None:
    mask = discs((40, 40, 15), (40, 66, 15))
    mask[2:10, 2:9] = 1  # 56 pixels: 3.5 um2
    path = write(tmp_path / "m.tif", mask, mpp)
    assert write_objects(path, instances=True).counts["nucleus"] == 2
    assert write_objects(path, instances=True, min_area=0).counts["nucleus"] == 3
    assert write_objects(path, instances=False).counts["nucleus"] == 2, "two that touch, a speck"


def test_too_large_objects_stay_whole_and_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mask = discs((40, 20, 15), (40, 46, 15), (20, 85, 8), (20, 99, 8))
    path = write(tmp_path / "m.tif", mask)
    assert write_objects(path, instances=True).counts["nucleus"] == 4
    monkeypatch.setattr(instances, "MAX_BOX", 1000)
    counted = write_objects(path, instances=True)
    assert (counted.counts["nucleus"], counted.whole) == (3, 1)
    assert f"{path}: too large to be taken apart: 1 object" in caplog.text


def test_the_distance_of_seeds() -> None:
    assert seed_distance_in_pixels(None, 0.5) == 3
    assert seed_distance_in_pixels(None, None) == 6
    assert seed_distance_in_pixels(2, 0.25) == 8
    for wrong in (0, -1, float("nan"), float("inf"), 1e6):
        with pytest.raises(InputError, match="distance of seeds"):
            seed_distance_in_pixels(wrong, 0.25)
    near = discs((40, 40, 9), (40, 56, 9))
    assert [len(split(near, 6)), len(split(near, 30))] == [2, 1]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instances, "_SHEET", 2**16)
    outlines = objects_of(cells(400))

    def peak(copies: int) -> int:
        splitter = InstanceSplitter(6)
        tracemalloc.start()
        for _ in range(copies):
            for _ in splitter.push(outlines):
                pass
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    assert peak(6) < 1.5 * peak(2)
