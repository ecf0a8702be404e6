"""GeoJSON files as shapely and QuPath read them."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageDraw

from genselfdiff.errors import GsdError, InputError, OutputError
from genselfdiff.masks import MaskReader, MaskWriter, PyramidShape
from genselfdiff.objects import mask_objects, write_objects

NAMES = ["background", "nucleus", "str\u00f6ma"]
PALETTE = [(255, 255, 255), (200, 30, 31), (32, 30, 200)]


def labels(height: int = 211, width: int = 303) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    blobs = np.sin(x / 9) + np.sin(y / 13) + np.sin((x + y) / 37)
    return np.digitize(blobs, [0.3, 1.2]).astype(np.uint8)


def write(path: Path, mask: np.ndarray, mpp: float | None = 0.5) -> Path:
    shape = PyramidShape(mask.shape[1], mask.shape[0], mpp, tile=64)
    with MaskWriter(path, shape, palette=PALETTE, class_names=NAMES) as writer:
        writer.write_rows(mask)
    return path


def test_features_are_those_that_qupath_exports(tmp_path: Path) -> None:
    mask = np.zeros((40, 50), np.uint8)
    mask[2:12, 4:24] = 1
    mask[5:7, 6:9] = 0
    mask[39, 49] = 2
    output = tmp_path / "m.geojson"
    counts = write_objects(write(tmp_path / "m.tif", mask), geojson=output).counts
    assert counts == {"nucleus": 1, "str\u00f6ma": 1}
    collection = json.loads(output.read_text(encoding="utf-8"))
    assert (collection["type"], len(collection["features"])) == ("FeatureCollection", 2)
    first, second = collection["features"]
    exterior = [[4, 2], [24, 2], [24, 12], [4, 12], [4, 2]]
    hole = [[6, 5], [6, 7], [9, 7], [9, 5], [6, 5]]
    assert first == {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [exterior, hole]},
        "properties": {
            "objectType": "annotation",
            "classification": {"name": "nucleus", "color": [200, 30, 31]},
            "measurements": {
                "gsd id": 1,
                "Area \u00b5m^2": 194 * 0.25,
                "Perimeter \u00b5m": 70 * 0.5,
                "Equivalent diameter \u00b5m": 7.8583,
                "Eccentricity": 0.8608,
            },
        },
    }
    assert second["properties"]["classification"] == {"name": "str\u00f6ma", "color": [32, 30, 200]}


@pytest.mark.parametrize("pixels", [1, 16 * 303, 10**9])
def test_drawn_again_it_is_the_mask(
    tmp_path: Path, pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = labels()
    path = write(tmp_path / "m.tif", mask)
    whole, cut = tmp_path / "whole.geojson", tmp_path / "cut.geojson"
    write_objects(path, geojson=whole)
    monkeypatch.setattr(mask_objects, "_PIXELS_TRACED", pixels)
    monkeypatch.setattr(mask_objects, "_LEAST_ROWS", 1)
    write_objects(path, geojson=cut)
    assert cut.read_bytes() == whole.read_bytes()
    shape = pytest.importorskip("shapely.geometry").shape
    drawn = Image.new("L", (4 * 303, 4 * 211))
    pen = ImageDraw.Draw(drawn)
    areas = {name: 0.0 for name in NAMES[1:]}
    # Larger first: what lies in a hole is drawn after what is around it.
    features = json.loads(whole.read_text(encoding="utf-8"))["features"]
    for feature in sorted(features, key=lambda f: -shape(f["geometry"]).envelope.area):
        polygon = shape(feature["geometry"])
        assert polygon.is_valid
        name = feature["properties"]["classification"]["name"]
        areas[name] += polygon.area
        assert feature["properties"]["measurements"]["Area \u00b5m^2"] == polygon.area / 4
        for ring, value in [
            (polygon.exterior, NAMES.index(name)),
            *((hole, 0) for hole in polygon.interiors),
        ]:
            pen.polygon([(4 * x, 4 * y) for x, y in ring.coords], fill=value)
    np.testing.assert_array_equal(np.asarray(drawn)[2::4, 2::4], mask)
    assert areas == {name: np.count_nonzero(mask == i) for i, name in enumerate(NAMES) if i}


def test_without_resolution_measurements_are_in_pixels(tmp_path: Path) -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[1:4, 1:4] = 1
    mask[10:12, 10:12] = 1
    path, output = write(tmp_path / "m.tif", mask, None), tmp_path / "m.json"

    def nuclei(**options: float | bool) -> int:
        return write_objects(path, geojson=output, **options).counts["nucleus"]

    assert nuclei(min_area=5) == 1
    (feature,) = json.loads(output.read_text(encoding="utf-8"))["features"]
    assert feature["properties"]["measurements"] == {
        "gsd id": 1,
        "Area px^2": 9,
        "Perimeter px": 12,
        "Equivalent diameter px": 3.3851,
        "Eccentricity": 0,
    }
    assert nuclei(mpp=2.0, min_area=16, overwrite=True) == 2
    assert nuclei(mpp=2.0, min_area=16.1, overwrite=True) == 1


def test_no_objects(tmp_path: Path) -> None:
    path = write(tmp_path / "m.tif", np.zeros((300, 100), np.uint8))
    assert write_objects(path, geojson=tmp_path / "m.geojson").counts == {
        "nucleus": 0,
        "str\u00f6ma": 0,
    }
    collection = json.loads((tmp_path / "m.geojson").read_bytes())
    assert collection == {"type": "FeatureCollection", "features": []}


@pytest.mark.parametrize("layout", [{}, {"rowsperstrip": 1}, {"tile": (32, 48)}])
def test_masks_of_others(tmp_path: Path, layout: dict[str, object]) -> None:
    mask = labels(70, 90)
    tifffile.imwrite(tmp_path / "m.tif", mask, compression="zlib", **layout)
    with MaskReader(tmp_path / "m.tif") as reader:
        np.testing.assert_array_equal(np.concatenate(list(reader.bands())), mask)
        assert (reader.class_names, reader.palette, reader.mpp) == ([], [], None)
    counts = write_objects(tmp_path / "m.tif", geojson=tmp_path / "m.geojson").counts
    assert set(counts) == {"class 1", "class 2"}


def test_what_cannot_be_is_said_in_one_line(tmp_path: Path) -> None:
    path, output = write(tmp_path / "m.tif", labels(600, 400)), tmp_path / "m.geojson"
    rgb, cut, text = tmp_path / "rgb.tif", tmp_path / "cut.tif", tmp_path / "text.tif"
    tifffile.imwrite(rgb, np.zeros((20, 20, 3), np.uint8), photometric="rgb")
    damaged = bytearray(path.read_bytes())
    damaged[300:2000] = bytes(1700)
    cut.write_bytes(damaged)
    text.write_text("no mask")
    for given, match in [
        (tmp_path / "no.tif", "no such file"),
        (rgb, "no mask of class indices"),
        (cut, "is damaged"),
        (text, "no readable mask"),
    ]:
        with pytest.raises(InputError, match=match) as caught:
            write_objects(given, geojson=output)
        assert "\n" not in str(caught.value)
        assert str(given) in str(caught.value)
    for options in ({"min_area": -1}, {"min_area": float("nan")}, {"mpp": 0}):
        with pytest.raises(InputError):
            write_objects(path, geojson=output, **options)
    for target in (tmp_path / "m.txt", tmp_path / "no" / "m.json"):
        with pytest.raises(OutputError, match=str(target)):
            write_objects(path, geojson=target)
    output.write_text("precious")
    with pytest.raises(OutputError, match="--overwrite"):
        write_objects(path, geojson=output)
    with pytest.raises(GsdError):
        write_objects(cut, geojson=output, overwrite=True)
    assert output.read_text() == "precious"
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in (path, output, rgb, cut, text)}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_killed_in_the_middle_it_leaves_nothing_under_its_name(tmp_path: Path, number: int) -> None:
    path = write(tmp_path / "m.tif", labels(3000, 400))
    script = textwrap.dedent(
        """
        import sys, time
        from genselfdiff.objects import mask_objects
        mask_objects._PIXELS_TRACED = mask_objects._LEAST_ROWS = 1
        mask_objects._WRITTEN_AT_ONCE = 1
        push = mask_objects.OutlineTracer.push
        def slow(*arguments):
            time.sleep(0.01)
            return push(*arguments)
        mask_objects.OutlineTracer.push = slow
        mask_objects.write_objects(sys.argv[1], geojson=sys.argv[2])
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path), str(tmp_path / "m.geojson")],
        stderr=subprocess.DEVNULL,
        env=os.environ,
    )
    try:
        while not any(p.stat().st_size for p in tmp_path.glob(".m.geojson*")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        process.wait(timeout=600)
    finally:
        process.kill()
    left = {p.name for p in tmp_path.iterdir() if not p.name.startswith(".")}
    assert left == {"m.tif"}
    if number == signal.SIGINT:
        assert not list(tmp_path.glob(".*"))
