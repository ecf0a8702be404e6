"""Damaged tiles end the reading, or become glass, as the caller wants."""

import logging
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from genselfdiff.errors import InputError
from genselfdiff.slides import TissueMap, open_slide
from genselfdiff.slides.formats import openslide as openslide_format
from genselfdiff.slides.formats.openslide import open_with_openslide
from genselfdiff.slides.slide import Slide
from genselfdiff.slides.stored.damage import Damage


def spoil(path: Path, *pieces: int, page: int = 0) -> list[int]:
    """Overwrite the beginning of stored pieces; returns their offsets."""
    with tifffile.TiffFile(path) as opened:
        offsets = [opened.pages[page].dataoffsets[piece] for piece in pieces]
    data = bytearray(path.read_bytes())
    for offset in offsets:
        data[offset : offset + 40] = bytes(40)
    path.write_bytes(data)
    return offsets


def test_damaged_tiles_become_glass_and_are_told(
    tiff: Callable[..., Path], picture: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    path = tiff(picture, tile=(64, 64), compression="zlib")
    offsets = spoil(path, 12, 13)
    expected = picture.copy()
    expected[64:128, 128:256] = 255
    with caplog.at_level(logging.WARNING), open_slide(path, on_error="blank") as slide:
        for _ in range(2):  # a tile that was forgotten and met again is no second one
            np.testing.assert_array_equal(slide.read_level(0, 0, 602, 413), expected)
            slide._stored.forget_pieces()
        assert slide.blank_tiles == 2
    told = [record.message for record in caplog.records]
    assert len(told) == 2
    assert f"{path}: tile (column 2, row 1) of level 0, at byte {offsets[0]}, cannot" in told[0]
    assert all(message.endswith("taken for glass") for message in told)


def test_warnings_are_few(
    tiff: Callable[..., Path], picture: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    path = tiff(picture, tile=(64, 64), compression="lzw")
    spoil(path, *range(30))
    with caplog.at_level(logging.WARNING), open_slide(path, on_error="blank") as slide:
        slide.read_level(0, 0, 602, 413)
        assert slide.blank_tiles == 30
    assert len(caplog.records) == 11
    assert "counted, not listed" in caplog.records[-1].message


def test_strips_are_named_too(tiff: Callable[..., Path], picture: np.ndarray) -> None:
    path = tiff(picture, rowsperstrip=20, compression="zlib")
    (offset,) = spoil(path, 7)
    with (
        open_slide(path) as slide,
        pytest.raises(InputError, match=rf"strip \(column 0, row 7\) of level 0, at byte {offset}"),
    ):
        slide.read_level(0, 139, 1, 2)


def test_what_a_copy_lost_becomes_glass(tmp_path: Path, picture: np.ndarray) -> None:
    """The directory is whole, the last tiles are not: so stops a download of an SVS."""
    path = tmp_path / "a.tif"
    whole = tmp_path / "whole.tif"
    tifffile.imwrite(whole, picture, photometric="rgb", tile=(64, 64))
    path.write_bytes(whole.read_bytes()[: int(0.8 * whole.stat().st_size)])
    with pytest.raises(InputError, match=r"is truncated: \d+ of 70 .*--on-error blank"):
        open_slide(path)
    with open_slide(path, on_error="blank") as slide:
        pixels = slide.read_level(0, 0, 602, 413)
        assert 5 < slide.blank_tiles < 20
    np.testing.assert_array_equal(pixels[:256], picture[:256])
    assert (pixels[390:] == 255).all()


def test_a_slide_of_which_nothing_is_there(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, picture, photometric="rgb", tile=(64, 64))
    with tifffile.TiffFile(path) as opened:
        first = min(opened.pages[0].dataoffsets)
    path.write_bytes(path.read_bytes()[:first])
    with pytest.raises(InputError, match="is truncated: 70 of 70"):
        open_slide(path, on_error="blank")


def test_a_slide_without_any_whole_tile_has_no_tissue(
    tiff: Callable[..., Path], picture: np.ndarray
) -> None:
    path = tiff(picture, tile=(64, 64), compression="zlib")
    spoil(path, *range(70))
    with open_slide(path, on_error="blank") as slide:
        assert not TissueMap(slide).mask.any()
        assert slide.blank_tiles == 70


def test_a_damaged_picture_is_an_error_whatever_is_wanted(
    tmp_path: Path, picture: np.ndarray
) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    path.write_bytes(path.read_bytes()[:-9000])
    with (
        open_slide(path, on_error="blank") as slide,
        pytest.raises(InputError, match="is it whole"),
    ):
        slide.read_level(0, 0, 1, 1)


def test_no_memory_is_no_damage(
    tiff: Callable[..., Path], picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiff(picture, tile=(64, 64), compression="zlib")

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    with open_slide(path, on_error="blank") as slide:
        monkeypatch.setattr(slide._stored.levels[0], "_decode", fail)
        with pytest.raises(InputError, match="too little memory for a piece of 64 x 64 pixels"):
            slide.read_level(0, 0, 1, 1)


def test_unknown_answers(tiff: Callable[..., Path], picture: np.ndarray) -> None:
    with pytest.raises(InputError, match="on_error 'ignore' must be one of fail, blank"):
        open_slide(tiff(picture), on_error="ignore")


@pytest.mark.parametrize("on_error", ["fail", "blank"])
def test_openslide_goes_on_after_a_damaged_tile(
    tmp_path: Path, picture: np.ndarray, on_error: str
) -> None:
    """OpenSlide itself refuses everything after its first error."""
    pytest.importorskip("openslide")
    pixels = np.tile(picture[:400, :600], (3, 3, 1))
    tiles = [
        imagecodecs.jpeg8_encode(np.ascontiguousarray(pixels[y : y + 240, x : x + 240]))
        for y in range(0, 1200, 240)
        for x in range(0, 1680, 240)
    ]
    tiles[8] = bytes(len(tiles[8]))  # at (240, 240)
    path = tmp_path / "a.tif"
    options = {"tile": (240, 240), "photometric": "ycbcr", "subsampling": (1, 1)}
    tifffile.imwrite(
        path, iter(tiles), shape=(1200, 1680, 3), dtype="u1", compression="jpeg", **options
    )
    damage = Damage(path, on_error)
    with Slide(damage, open_with_openslide(path, damage), None) as slide:
        for _ in range(2):
            if on_error == "fail":
                with pytest.raises(InputError, match=r"area at \(0, 0\) of level 0 cannot"):
                    slide.read_level(0, 0, 10, 10)
            else:
                assert (slide.read_level(0, 0, 512, 512) == 255).all()
            side = openslide_format._PIECE
            whole = slide.read_level(2 * side, side, 300, 300).astype(int)
            assert abs(whole - pixels[side : side + 300, 2 * side :][:, :300]).mean() < 5
        assert slide.blank_tiles == (on_error == "blank")
