"""Images that are stored turned or mirrored are read as viewers show them."""

import logging
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from genselfdiff.errors import InputError
from genselfdiff.masks import MaskReader, write_overlay
from genselfdiff.slides import TissueMap, open_slide, read_image
from genselfdiff.slides.stored import stored_image

TURNS = range(2, 9)


def tag(orientation: int) -> list[tuple[object, ...]]:
    return [(274, "H", 1, orientation, True)]


def seen(path: Path) -> np.ndarray:
    with Image.open(path) as file:
        return np.asarray(ImageOps.exif_transpose(file).convert("RGB"))


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("layout", [{"tile": (64, 80)}, {"rowsperstrip": 37}, {}])
def test_tiff(
    tiff: Callable[..., Path], picture: np.ndarray, orientation: int, layout: dict[str, object]
) -> None:
    path = tiff(picture, extratags=tag(orientation), metadata=None, **layout)
    expected = seen(path)
    height, width = expected.shape[:2]
    with open_slide(path) as slide:
        assert (slide.width, slide.height) == (width, height)
        np.testing.assert_array_equal(slide.read_level(0, 0, width, height), expected)
        window = slide.read_level(width - 90, 3, 90, 201)
        np.testing.assert_array_equal(window, expected[3:204, width - 90 :])


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_pictures(tmp_path: Path, picture: np.ndarray, orientation: int, name: str) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(picture).save(tmp_path / name, exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / name), seen(tmp_path / name))


def test_exif_behind_the_pixels_of_a_png(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "a.png"
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(picture).save(path)
    content = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(content)) + b"eXIf" + content
    chunk += struct.pack(">I", zlib.crc32(chunk[4:]))
    stored = path.read_bytes()
    path.write_bytes(stored[:-12] + chunk + stored[-12:])  # before IEND
    np.testing.assert_array_equal(read_image(path), np.rot90(picture, -1))
    path.write_bytes(stored[:-12] + chunk[:10])
    with open_slide(path) as slide:
        assert (slide.width, slide.height) == (602, 413)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("damage", [b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0no", b"Exif\0\0"])
def test_damaged_exif_turns_nothing(tmp_path: Path, picture: np.ndarray, damage: bytes) -> None:
    Image.fromarray(picture).save(tmp_path / "a.jpg", exif=damage)
    assert read_image(tmp_path / "a.jpg").shape == picture.shape


@pytest.mark.parametrize("orientation", [0, 1, 9])
def test_numbers_that_are_none(
    tiff: Callable[..., Path], picture: np.ndarray, orientation: int
) -> None:
    path = tiff(picture, extratags=tag(orientation), metadata=None)
    np.testing.assert_array_equal(read_image(path), picture)


@pytest.mark.parametrize("tagged", [True, False])
def test_a_pyramid(tmp_path: Path, picture: np.ndarray, tagged: bool) -> None:
    """Levels are turned as the slide is, whether they tell it or not; others are none."""
    path = tmp_path / "a.tif"
    options = {"photometric": "rgb", "tile": (64, 64), "metadata": None}
    with tifffile.TiffWriter(path) as writer:
        writer.write(picture, extratags=tag(8), **options)
        level = picture[::2, ::2]
        writer.write(level, subfiletype=1, extratags=tag(8) if tagged else [], **options)
        writer.write(picture[::4, ::4], subfiletype=1, extratags=tag(3), **options)
    with open_slide(path) as slide:
        assert [(each.width, each.height) for each in slide.levels] == [(413, 602), (207, 301)]
        np.testing.assert_array_equal(slide.read_level(0, 0, 207, 301, 1), np.rot90(level))


def test_what_is_turned_is_told_once(
    tiff: Callable[..., Path], picture: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    path = tiff(picture, extratags=tag(6), metadata=None)
    with caplog.at_level(logging.INFO, "genselfdiff"):
        for _ in range(2):
            open_slide(path).close()
    assert caplog.messages == [
        f"{path}: is stored turned or mirrored (orientation 6) and read upright, as viewers show it"
    ]


def test_closing_forgets_the_stored_pieces(tiff: Callable[..., Path], picture: np.ndarray) -> None:
    stored_image._CACHE.reset()
    with open_slide(tiff(picture, extratags=tag(6), metadata=None, tile=(64, 64))) as slide:
        slide.hold_rows(400, 64, 0)
        slide.read_level(0, 0, 413, 602)
        assert stored_image._CACHE._slots
    assert not stored_image._CACHE._slots
    assert not stored_image._CACHE._reserved


def test_a_tissue_mask_is_turned_as_well(tiff: Callable[..., Path], tmp_path: Path) -> None:
    slide = tiff(np.full((60, 40, 3), 255, np.uint8))
    mask = np.zeros((40, 60), np.uint8)
    mask[:, :20] = 1  # turned by orientation 6: above
    tifffile.imwrite(tmp_path / "mask.tif", mask, extratags=tag(6), metadata=None)
    with open_slide(slide) as opened:
        tissue = TissueMap(opened, mask_file=tmp_path / "mask.tif").mask
    assert tissue.shape == (60, 40)
    assert tissue[:20].all() and not tissue[20:].any()


def test_a_turned_mask_is_no_mask_of_ours(tiff: Callable[..., Path], tmp_path: Path) -> None:
    mask, slide = tmp_path / "m.tif", tiff(np.zeros((9, 7, 3), np.uint8))
    tifffile.imwrite(mask, np.zeros((9, 7), np.uint8), extratags=tag(3))
    with pytest.raises(InputError, match=r"m\.tif: is stored turned or mirrored; save it upright"):
        MaskReader(mask)
    with open_slide(slide) as opened, pytest.raises(InputError, match="save it upright"):
        write_overlay(opened, mask, tmp_path / "o.png")
