"""Images of objects' numbers as tifffile reads them."""

import csv
import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from genselfdiff.errors import InputError, OutputError
from genselfdiff.masks import MaskReader, MaskWriter, PyramidShape, pyramid_writer
from genselfdiff.objects import label_image, mask_objects, write_objects
from genselfdiff.objects.instances import InstanceSplitter
from genselfdiff.objects.label_image import LabelImage
from genselfdiff.objects.outlines import Outline, OutlineTracer

PALETTE = [(255, 255, 255), (200, 30, 31), (32, 30, 200)]


def blobs(height: int = 331, width: int = 303) -> np.ndarray:
    """Three classes with holes, islands in holes and pixels that touch at corners."""
    y, x = np.mgrid[:height, :width]
    waves = np.sin(x / 9) + np.sin(y / 13) + np.sin((x + y) / 37)
    mask = np.digitize(waves, [0.3, 1.2]).astype(np.uint8)
    mask[np.random.default_rng(0).random(mask.shape) < 0.02] = 0
    return mask


def write(path: Path, mask: np.ndarray, mpp: float | None = 0.5) -> Path:
    shape = PyramidShape(mask.shape[1], mask.shape[0], mpp, tile=64)
    names = ["background", "nucleus", "stroma"]
    with MaskWriter(path, shape, palette=PALETTE, class_names=names) as writer:
        writer.write_rows(mask)
    return path


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def check_against_table(labels: np.ndarray, mask: np.ndarray, table: Path) -> None:
    """Area, box, middle and class of every number are those of its row."""
    rows = rows_of(table)
    assert [int(row["id"]) for row in rows] == list(range(1, len(rows) + 1))
    areas = np.bincount(labels.ravel(), minlength=len(rows) + 1)
    assert areas[1:].tolist() == [int(row["area_px"]) for row in rows]
    boxes = ndimage.find_objects(labels)
    middles = ndimage.center_of_mass(labels > 0, labels, np.arange(1, len(rows) + 1))
    for row, (y, x), (middle_y, middle_x) in zip(rows, boxes, middles, strict=True):
        box = [int(row[f"{side}_px"]) for side in ("left", "top", "width", "height")]
        assert box == [x.start, y.start, x.stop - x.start, y.stop - y.start]
        middle = [float(row["centroid_x_px"]), float(row["centroid_y_px"])]
        assert middle == pytest.approx([middle_x + 0.5, middle_y + 0.5], abs=1e-3)
    names = np.array(["background", "nucleus", "stroma"])
    of_id = np.array(["background"] + [row["class"] for row in rows])
    assert (names[mask] == of_id[labels])[labels > 0].all()


@pytest.mark.parametrize("instances", [False, True])
def test_pixels_have_the_number_of_their_row(tmp_path: Path, instances: bool) -> None:
    mask = blobs()
    path, table, image = write(tmp_path / "m.tif", mask), tmp_path / "o.csv", tmp_path / "o.tif"
    write_objects(path, table=table, labels=image, instances=instances, min_area=0)
    labels = tifffile.imread(image)
    check_against_table(labels, mask, table)
    assert ((labels > 0) == (mask > 0)).all()
    if instances:
        assert labels.max() > sum(ndimage.label(mask == value)[1] for value in (1, 2))
    assert sorted(os.listdir(tmp_path)) == ["m.tif", "o.csv", "o.tif"]


def test_what_is_left_out_is_0_and_what_is_filled_is_not(tmp_path: Path) -> None:
    mask = np.zeros((200, 90), np.uint8)
    mask[10:180, 10:80] = 1
    mask[60:62, 30:32] = 0  # filled
    mask[70:73, 40:42] = 2  # smaller than it may be, in a hole that is filled
    mask[100:150, 20:60] = 0
    mask[120:130, 30:40] = 2
    mask[2:4, 2:4] = 2
    path, image = write(tmp_path / "m.tif", mask, mpp=None), tmp_path / "o.tif"
    write_objects(path, labels=image, min_area=7)
    expected = np.zeros(mask.shape, np.uint32)
    expected[10:180, 10:80] = 2
    expected[100:150, 20:60] = 0
    expected[120:130, 30:40] = 1
    assert np.array_equal(tifffile.imread(image), expected)


@pytest.mark.parametrize(
    ("band", "held", "traced"), [(1, 1, 1), (7, 50, 303 * 16), (512, 10**9, 10**9)]
)
def test_it_does_not_depend_on_bands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, band: int, held: int, traced: int
) -> None:
    path = write(tmp_path / "m.tif", blobs())
    whole, cut = tmp_path / "whole.tif", tmp_path / "cut.tif"
    write_objects(path, labels=whole, instances=True)
    monkeypatch.setattr(mask_objects, "_PIXELS_TRACED", traced)
    monkeypatch.setattr(mask_objects, "_LEAST_ROWS", 1)
    monkeypatch.setattr(label_image, "_BAND_ROWS", band)
    monkeypatch.setattr(label_image, "_STEPS_HELD", held)
    write_objects(path, labels=cut, instances=True)
    assert cut.read_bytes() == whole.read_bytes()


def test_the_file_is_a_pyramid_of_the_mask_s_size(tmp_path: Path) -> None:
    mask = np.tile(blobs(), (4, 5))
    image = tmp_path / "o.tif"
    counts = write_objects(write(tmp_path / "m.tif", mask), labels=image).counts
    with tifffile.TiffFile(image) as tiff:
        assert tiff.is_bigtiff
        page = tiff.pages[0]
        assert (page.dtype, page.compression.name, page.tile) == (
            np.uint32,
            "ADOBE_DEFLATE",
            (512, 512),
        )
        told = json.loads(page.description)
        assert told == {"mpp": 0.5, "objects": sum(counts.values())}
        assert page.resolutionunit == 3
        assert page.get_resolution(unit="MICROMETER") == pytest.approx((2, 2))
        levels = [level.asarray() for level in tiff.series[0].levels]
    assert [level.shape for level in levels] == [(1324, 1515), (662, 758), (331, 379)]
    assert levels[0].max() == told["objects"] > 2**8
    assert np.array_equal(levels[1], levels[0][::2, ::2])
    assert np.array_equal(levels[2], levels[0][::4, ::4])
    with pytest.raises(InputError, match="is no mask of class indices"):
        MaskReader(image)


def test_as_an_ome_tiff(tmp_path: Path) -> None:
    ome_types = pytest.importorskip("ome_types")
    mask = np.tile(blobs(), (2, 2))
    image = tmp_path / "o.ome.tif"
    write_objects(write(tmp_path / "m.tif", mask), labels=image)
    with tifffile.TiffFile(image) as tiff:
        assert tiff.is_ome
        assert [level.shape for level in tiff.series[0].levels] == [(662, 606), (331, 303)]
    pixels = ome_types.from_tiff(image).images[0].pixels
    assert (pixels.type.value, pixels.physical_size_x) == ("uint32", 0.5)


def test_large_numbers_side_by_side(tmp_path: Path) -> None:
    """Their steps wrap around: the sums must not."""
    rings = [
        np.array([[x, 0], [x + 3, 0], [x + 3, 4], [x, 4], [x, 0]], np.int64) for x in (0, 3, 6)
    ]
    ids = [2**32 - 1, 2**31, 5]
    with LabelImage(tmp_path / "o.tif", 9, 5, None) as image:
        image.write(ids, [Outline(1, (ring,), 12, 14) for ring in rings])
    expected = np.zeros((5, 9), np.uint32)
    expected[:4] = np.repeat(np.array(ids, np.uint32), 3)
    assert np.array_equal(tifffile.imread(tmp_path / "o.tif"), expected)


def test_a_mask_without_objects(tmp_path: Path) -> None:
    image = tmp_path / "o.tif"
    write_objects(write(tmp_path / "m.tif", np.zeros((70, 90), np.uint8)), labels=image)
    assert not tifffile.imread(image).any()


def test_memory_follows_the_width(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One object spans all, with many holes: image and steps would each take 25 MiB."""
    monkeypatch.setattr(pyramid_writer, "_WAITING_TILES", 2)
    monkeypatch.setattr(label_image, "_STEPS_HELD", 2**16)
    height, width, lines = 2**15, 200, 64
    pattern = np.ones((lines, width), np.uint8)
    pattern[8:24, 8:24] = 2
    pattern[40:50, 100:140] = 0
    pattern[52:60:2, 110:190:2] = 0
    tracer = OutlineTracer(width)
    outlines = [o for _ in range(height // lines) for o in tracer.push(pattern)]
    outlines += tracer.finish()
    assert len(outlines) == height // lines + 1
    path = tmp_path / "o.tif"
    tracemalloc.start()
    try:
        with LabelImage(path, width, height, 0.5) as image:
            for first in range(0, len(outlines), 1024):
                some = outlines[first : first + 1024]
                image.write(range(first + 1, first + 1 + len(some)), some)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**24
    with tifffile.TiffFile(path) as tiff:
        labels = tiff.pages[0].asarray()
    expected = np.tile(np.where(pattern == 1, np.uint32(len(outlines)), 0), (height // lines, 1))
    numbers = np.arange(1, height // lines + 1, dtype=np.uint32)
    expected.reshape(-1, lines, width)[:, 8:24, 8:24] = numbers[:, None, None]
    assert np.array_equal(labels, expected)


def test_what_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, image = write(tmp_path / "m.tif", blobs()), tmp_path / "o.tif"
    with pytest.raises(OutputError, match=r"o\.png: must end in \.tif or \.tiff: name it so"):
        write_objects(path, labels=tmp_path / "o.png")
    with pytest.raises(OutputError, match="is an input of this run: name another file"):
        write_objects(path, labels=path, overwrite=True)
    with pytest.raises(OutputError, match=r"none/o\.tif"):
        write_objects(path, labels=tmp_path / "none" / "o.tif")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(label_image._Spool, "add", fail)
        with pytest.raises(OutputError, match=r"o\.tif: cannot be written: .*No space left"):
            write_objects(path, labels=image, table=tmp_path / "o.csv")
    with monkeypatch.context() as broken:
        broken.setattr(InstanceSplitter, "finish", fail)
        with pytest.raises(OSError):
            write_objects(path, labels=image, instances=True)
    assert os.listdir(tmp_path) == ["m.tif"]
    image.write_bytes(b"old")
    with pytest.raises(OutputError, match="exists already"):
        write_objects(path, labels=image)
    write_objects(path, labels=image, overwrite=True)
    assert tifffile.imread(image).any()
