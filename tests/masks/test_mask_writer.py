"""Masks as others read them, and what is left when writing fails."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import tifffile
from PIL import Image

from genselfdiff.errors import OutputError
from genselfdiff.masks import MaskReader, MaskWriter, PyramidShape
from genselfdiff.masks.mask_writer import halve_labels
from genselfdiff.slides import open_slide

PALETTE = [(255, 255, 255), (200, 30, 30), (30, 30, 200), (0, 160, 0)]
NAMES = ["background", "nucleus", "gland", "str\u00f6ma"]


def labels(height: int = 411, width: int = 603) -> np.ndarray:
    """Blobs of four classes, and a uniform part."""
    y, x = np.mgrid[:height, :width]
    blobs = np.sin(x / 9) + np.sin(y / 13) + np.sin((x + y) / 37)
    mask = np.digitize(blobs, [0.3, 1.0, 1.7]).astype(np.uint8)
    mask[:, : width // 3] = 0
    return mask


def write(path: Path, mask: np.ndarray, *, rows: int = 50, tile: int = 64) -> Path:
    height, width = mask.shape
    with MaskWriter(
        path, PyramidShape(width, height, 0.5, tile=tile), palette=PALETTE, class_names=NAMES
    ) as writer:
        for y in range(0, height, rows):
            writer.write_rows(mask[y : y + rows])
    return path


def most_frequent(mask: np.ndarray) -> np.ndarray:
    """The rule of the pyramid, pixel by pixel."""
    height, width = mask.shape
    padded = np.pad(mask, ((0, height % 2), (0, width % 2)), mode="edge")
    half = np.empty(((height + 1) // 2, (width + 1) // 2), np.uint8)
    for y, x in np.ndindex(half.shape):
        counts = Counter(padded[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel().tolist())
        half[y, x] = max(counts, key=lambda value: (counts[value], value))
    return half


@pytest.mark.parametrize("rows", [1, 37, 64, 128, 1000])
@pytest.mark.parametrize("shape", [(411, 603), (64, 64), (65, 1), (1, 200), (128, 130)])
def test_labels_come_back_in_every_page(tmp_path: Path, shape: tuple[int, int], rows: int) -> None:
    expected = labels(*shape)
    with tifffile.TiffFile(write(tmp_path / "m.tif", expected, rows=rows)) as tiff:
        for i in range(len(tiff.pages)):
            np.testing.assert_array_equal(tiff.pages[i].asarray(), expected)
            assert tiff.pages[i].subfiletype == (1 if i else 0)
            expected = halve_labels(expected)
    assert max(expected.shape) <= 32, "the last page should fit in one tile"


@pytest.mark.parametrize(
    "window", [(0, 0, 603, 411), (205, 1, 1, 1), (250, 130, 97, 150), (602, 410, 1, 1)]
)
def test_a_window_is_the_mask_with_nothing_around_it(
    tmp_path: Path, window: tuple[int, int, int, int]
) -> None:
    x, y, width, height = window
    part = labels()[y : y + height, x : x + width]
    expected = np.zeros((411, 603), np.uint8)
    expected[y : y + height, x : x + width] = part
    whole = tifffile.TiffFile(write(tmp_path / "whole.tif", expected))
    path = tmp_path / "window.tif"
    with MaskWriter(
        path,
        PyramidShape(603, 411, 0.5, window=window, tile=32),
        palette=PALETTE,
        class_names=NAMES,
    ) as writer:
        for row in part:
            writer.write_rows(row[None])
        with pytest.raises(ValueError, match="more rows"):
            writer.write_rows(part[:1])
    with whole, tifffile.TiffFile(path) as tiff:
        for page in tiff.pages:
            np.testing.assert_array_equal(page.asarray(), expected)
            expected = halve_labels(expected)
        assert len(tiff.pages) == len(whole.pages) + 1


@pytest.mark.parametrize("shape", [(6, 8), (7, 9), (1, 1), (1, 6), (5, 1)])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_halving_keeps_the_most_frequent_class(shape: tuple[int, int], classes: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        mask = rng.integers(0, classes, shape).astype(np.uint8) * (255 // (classes - 1))
        np.testing.assert_array_equal(halve_labels(mask), most_frequent(mask))


def test_pillow_reads_labels_and_colours(tmp_path: Path) -> None:
    mask = labels()
    with Image.open(write(tmp_path / "m.tif", mask)) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), mask)
        np.testing.assert_array_equal(
            np.asarray(image.convert("RGB")), np.array(PALETTE, np.uint8)[mask]
        )
        image.seek(1)
        np.testing.assert_array_equal(np.asarray(image), halve_labels(mask))


def test_our_reader_sees_a_coloured_pyramid(tmp_path: Path) -> None:
    mask = labels()
    with open_slide(write(tmp_path / "m.tif", mask)) as slide:
        assert [level.downsample for level in slide.levels] == [1, 2, 4, 8, 16]
        assert slide.mpp == 0.5
        np.testing.assert_array_equal(
            slide.read_level(0, 0, 603, 411), np.array(PALETTE, np.uint8)[mask]
        )


@pytest.mark.parametrize("mpp", [0.2499, 0.5, 1 / 3, 17.3])
def test_tags(tmp_path: Path, mpp: float) -> None:
    path = tmp_path / "m.tif"
    with MaskWriter(
        path, PyramidShape(300, 200, mpp, tile=128), palette=PALETTE, class_names=NAMES
    ) as writer:
        writer.write_rows(labels(200, 300))
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_bigtiff
        for i in range(len(tiff.pages)):
            page = tiff.pages[i]
            assert (page.photometric, page.compression) == (3, 8)
            assert (page.tilewidth, page.tilelength) == (128, 128)
            assert page.resolutionunit == 3
            expected = 10_000 / (mpp * 2**i)
            assert page.resolution == pytest.approx((expected, expected), rel=1e-9)
            assert page.colormap[:, :4].T.tolist() == [[c * 257 for c in rgb] for rgb in PALETTE]
        pixels = np.bincount(labels(200, 300).ravel(), minlength=4).tolist()
        expected = {"classes": NAMES, "mpp": mpp, "pixels": pixels}
        assert json.loads(tiff.pages[0].description) == expected


def test_without_mpp_there_is_no_unit(tmp_path: Path) -> None:
    path = tmp_path / "m.tif"
    with MaskWriter(path, PyramidShape(20, 1, None), palette=PALETTE, class_names=NAMES) as writer:
        writer.write_rows(np.zeros((1, 20), np.uint8))
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].resolutionunit == 1
    with open_slide(path) as slide:
        assert slide.mpp is None


def test_uniform_tiles_are_stored_once(tmp_path: Path) -> None:
    mask = np.zeros((1024, 1024), np.uint8)
    mask[:, 512:] = 3
    path = write(tmp_path / "m.tif", mask)
    with tifffile.TiffFile(path) as tiff:
        assert len(set(tiff.pages[0].dataoffsets)) == 2
        np.testing.assert_array_equal(tiff.pages[0].asarray(), mask)


def test_256_classes(tmp_path: Path) -> None:
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = tmp_path / "m.tif"
    with MaskWriter(
        path,
        PyramidShape(16, 16, None),
        palette=[(i, 255 - i, i) for i in range(256)],
        class_names=[str(i) for i in range(256)],
    ) as writer:
        writer.write_rows(mask)
    np.testing.assert_array_equal(tifffile.imread(path), mask)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((5, 21), np.uint8), "do not fit"),
        (np.zeros(20, np.uint8), "do not fit"),
        (np.zeros((5, 20), np.int64), "do not fit"),
        (np.zeros((5, 20), bool), "do not fit"),
        (np.zeros((31, 20), np.uint8), "more rows than the 30"),
        (np.full((5, 20), 4, np.uint8), "class 4 is beyond the 4 of the palette"),
        (np.zeros((29, 20), np.uint8), "29 of 30 rows written"),
    ],
)
def test_rows_that_do_not_fit_leave_nothing(tmp_path: Path, rows: np.ndarray, message: str) -> None:
    target = tmp_path / "m.tif"
    target.write_bytes(b"older")
    with (
        pytest.raises(ValueError, match=message),
        MaskWriter(
            target, PyramidShape(20, 30, None), palette=PALETTE, class_names=NAMES
        ) as writer,
    ):
        writer.write_rows(rows)
    assert target.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    "wrong",
    [
        {"palette": PALETTE[:3]},
        {"palette": [], "class_names": []},
        {"palette": [(0, 0, 256)] * 4},
        {"palette": [(0, 0)] * 4},
        {"palette": [(0, 0, 0)] * 257, "class_names": [""] * 257},
    ],
)
def test_classes_out_of_range(tmp_path: Path, wrong: dict[str, object]) -> None:
    right = {"palette": PALETTE, "class_names": NAMES}
    with pytest.raises(ValueError, match="colours"):
        MaskWriter(tmp_path / "m.tif", PyramidShape(9, 9, 0.5), **{**right, **wrong})


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"width": 0}, "holds nothing"),
        ({"height": -1}, "holds nothing"),
        ({"tile": 100}, "tile side 100"),
        ({"tile": 0}, "tile side 0"),
        ({"mpp": 0.0}, "no resolution"),
        ({"mpp": float("nan")}, "no resolution"),
        ({"window": (1, 0, 9, 9)}, "is not inside 9 x 9 pixels"),
        ({"window": (0, 0, 0, 9)}, "is not inside 9 x 9 pixels"),
    ],
)
def test_shapes_out_of_range(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        PyramidShape(**{"width": 9, "height": 9, "mpp": 0.5, **wrong})


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write(tmp_path / "nowhere" / "m.tif", labels())


@contextmanager
def small_disk() -> Iterator[None]:
    """No file may grow beyond 2,000 bytes; not for a whole test, whose report is a file too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("side", [64, 600])  # noticed while finishing, and between the tiles
def test_no_room_leaves_nothing(tmp_path: Path, side: int) -> None:
    noise = np.random.default_rng(0).integers(0, 4, (side, side)).astype(np.uint8)
    told = r"m\.tif: cannot be written: File too large"
    with pytest.raises(OutputError, match=told), small_disk():
        write(tmp_path / "m.tif", noise)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: BinaryIO, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("genselfdiff.masks.bigtiff.BigTiffFile.add_data", full)
    with pytest.raises(OutputError, match=r"m\.tif: cannot be written: No space left on device"):
        write(tmp_path / "m.tif", labels())
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_leaves_the_older_mask(tmp_path: Path) -> None:
    target = tmp_path / "m.tif"
    write(target, labels())
    older = target.read_bytes()
    program = f"""
        import os, signal
        import numpy as np
        from genselfdiff.masks import MaskWriter, PyramidShape
        shape = PyramidShape(900, 900, None, tile=64)
        with MaskWriter({str(target)!r}, shape, palette=[(0, 0, 0)], class_names=["a"]) as writer:
            writer.write_rows(np.zeros((800, 900), np.uint8))
            os.kill(os.getpid(), signal.SIGKILL)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert target.read_bytes() == older


def test_what_is_written_before_the_end_opens_nowhere(tmp_path: Path) -> None:
    """The header names no directory until all tiles are there."""
    with MaskWriter(
        tmp_path / "m.tif", PyramidShape(64, 128, None, tile=64), palette=PALETTE, class_names=NAMES
    ) as writer:
        writer.write_rows(labels(128, 64))
        (partial,) = tmp_path.iterdir()
        assert partial.name != "m.tif"
        writer._file.stream.flush()
        assert partial.read_bytes()[:16] == b"II\x2b\0\x08\0\0\0" + bytes(8)
    assert [path.name for path in tmp_path.iterdir()] == ["m.tif"]


@pytest.mark.parametrize("name", ["a\x01b", os.fsdecode(b"a\xffb"), "ü & <"])
def test_ome_tiffs_of_any_name_tell_what_they_are(tmp_path, name):
    name += ".ome.tif"
    looks = {"palette": [(0, 0, 0)], "class_names": ["é"]}
    given = tmp_path / name, PyramidShape(9, 9, None)
    with MaskWriter(*given, description={"job": {"slide": name}}, **looks) as writer:
        writer.write_rows(np.zeros((9, 9), np.uint8))
    with MaskReader(tmp_path / name) as reader:
        assert reader.description["job"] == {"slide": name}
        assert reader.class_names == ["é"]
