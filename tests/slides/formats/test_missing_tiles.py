"""Tiles without bytes: glass, or made of a finer level that has them."""

from collections.abc import Callable, Collection
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from genselfdiff.errors import InputError
from genselfdiff.masks import MaskReader
from genselfdiff.slides import open_slide, read_image
from genselfdiff.slides.formats import missing_tiles


def tiles(pixels: np.ndarray, missing: Collection[int]) -> list[bytes]:
    rows, columns = range(0, pixels.shape[0], 64), range(0, pixels.shape[1], 64)
    cut = [pixels[y : y + 64, x : x + 64] for y in rows for x in columns]
    padded = [np.pad(c, ((0, 64 - len(c)), (0, 64 - c.shape[1]), (0, 0))) for c in cut]
    return [b"" if i in missing else imagecodecs.zlib_encode(c) for i, c in enumerate(padded)]


def halved(pixels: np.ndarray) -> np.ndarray:
    """Half the size, rounded up, of the mean of 2 x 2 pixels; at the edge of what there is."""
    down, across = -(-pixels.shape[0] // 2), -(-pixels.shape[1] // 2)
    sums = np.zeros((2, down, across, 3))
    for y in (0, 1):
        for x in (0, 1):
            part = pixels[y::2, x::2]
            sums[0, : part.shape[0], : part.shape[1]] += part
            sums[1, : part.shape[0], : part.shape[1]] += 1
    return np.floor(sums[0] / sums[1] + 0.5).astype(np.uint8)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write levels with tiles of 64, of which some are missing."""

    def make(*levels: tuple[np.ndarray, Collection[int]], **more: object) -> Path:
        path = tmp_path / "a.svs"
        options = {"tile": (64, 64), "photometric": "rgb", "metadata": None, "dtype": np.uint8}
        options = options | {"compression": "zlib"} | more
        with tifffile.TiffWriter(path) as writer:
            for index, (pixels, missing) in enumerate(levels):
                each = iter(tiles(pixels, missing))
                writer.write(each, shape=pixels.shape, subfiletype=int(index > 0), **options)
        return path

    return make


@pytest.mark.parametrize("limit", [2**22, 5000])
def test_a_level_is_completed_from_the_finer_one(
    write: Callable[..., Path], picture: np.ndarray, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(missing_tiles, "_PIXELS_AT_ONCE", limit)
    half = halved(picture)
    with open_slide(write((picture, ()), (half, {0, 6, 9, 19}))) as slide:
        seen = slide.read_level(0, 0, 301, 207, 1)
        np.testing.assert_allclose(seen.astype(int), half, atol=1)
        np.testing.assert_array_equal(seen[:64, 64:128], half[:64, 64:128])
        assert slide.levels[1].downsample == 2


def test_what_came_of_a_forgotten_tile_is_made_anew(
    write: Callable[..., Path], picture: np.ndarray
) -> None:
    """An encoder that forgot a tile made the next level of nothing: here of black."""
    half = halved(picture)
    quarter = halved(half)
    spoilt = quarter.copy()
    spoilt[32:64, 32:64] = 0
    with open_slide(write((picture, ()), (half, {6}), (spoilt, ()))) as slide:
        seen = slide.read_level(0, 0, 151, 104, 2).astype(int)
        np.testing.assert_allclose(seen, quarter, atol=2)


def test_what_no_level_has_is_glass_and_costs_nothing(
    write: Callable[..., Path], picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So are slides stored of which only the tissue was scanned."""
    half, quarter = halved(picture), halved(halved(picture))
    empty = {*range(10), *range(10, 20)}  # the upper two rows of tiles, of 7; then one of 4
    path = write((picture, empty), (half, range(5)), (quarter, ()))
    monkeypatch.setattr(missing_tiles.TileMap, "rebuild", None)
    with open_slide(path) as slide:
        assert (slide.read_level(0, 0, 301, 64, 1) == 255).all()
        np.testing.assert_array_equal(slide.read_level(0, 64, 301, 143, 1), half[64:])
        np.testing.assert_array_equal(slide.read_level(0, 0, 151, 104, 2), quarter)


def test_levels_that_lack_the_same_place(write: Callable[..., Path], picture: np.ndarray) -> None:
    """Through two levels, down to the one that has it."""
    half, quarter = halved(picture), halved(halved(picture))
    path = write((picture, {0}), (half, {0, 1, 5, 6}), (quarter, {0, 1, 2}))
    with open_slide(path) as slide:
        seen = slide.read_level(0, 0, 151, 104, 2).astype(int)
    assert (seen[:16, :16] == 255).all()
    np.testing.assert_allclose(seen[:, 16:], quarter[:, 16:], atol=2)


def test_a_slide_that_is_turned(tmp_path: Path, picture: np.ndarray) -> None:
    half = halved(picture)
    path = tmp_path / "a.tif"
    options = {"tile": (64, 64), "photometric": "rgb", "metadata": None, "dtype": np.uint8}
    options["compression"] = "zlib"
    turn = [(274, "H", 1, 6, True)]
    with tifffile.TiffWriter(path) as writer:
        writer.write(iter(tiles(picture, ())), shape=picture.shape, extratags=turn, **options)
        writer.write(iter(tiles(half, {7})), shape=half.shape, subfiletype=1, **options)
    with open_slide(path) as slide:
        seen = slide.read_level(0, 0, 207, 301, 1)
    np.testing.assert_allclose(seen.astype(int), np.rot90(half, -1), atol=1)


@pytest.mark.parametrize("missing", [(0,), (0, 8)])
def test_uncompressed_strips_that_are_not_stored_are_glass(
    tmp_path: Path, picture: np.ndarray, missing: tuple[int, ...]
) -> None:
    """At byte 0 is the header of the file, not their pixels."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, picture, photometric="rgb", rowsperstrip=50, metadata=None)
    forget(path, missing, offsets=True, counts=True)
    pixels = read_image(path)
    for strip in range(9):
        rows = slice(50 * strip, 50 * strip + 50)
        expected = np.full_like(picture[rows], 255) if strip in missing else picture[rows]
        np.testing.assert_array_equal(pixels[rows], expected)


@pytest.mark.parametrize("layout", [{"rowsperstrip": 50}, {"tile": (64, 64)}])
def test_pixels_at_byte_0_are_refused(
    tmp_path: Path, picture: np.ndarray, layout: dict[str, object]
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, picture, photometric="rgb", metadata=None, **layout)
    forget(path, (3,), offsets=True, counts=False)
    with pytest.raises(InputError, match=r"at byte 0, cannot be decoded \(not all of it is store"):
        read_image(path)


def test_a_level_with_tiles_at_byte_0(tmp_path: Path, picture: np.ndarray) -> None:
    """They are not stored, whatever their length is said to be; a finer level has them."""
    path, half = tmp_path / "a.tif", halved(picture)
    options = {"photometric": "rgb", "tile": (64, 64), "metadata": None}
    with tifffile.TiffWriter(path) as writer:
        writer.write(picture, **options)
        writer.write(half, subfiletype=1, **options)
    forget(path, (3, 7), offsets=True, counts=False, page=1)
    with open_slide(path) as slide:
        seen = slide.read_level(0, 0, 301, 207, 1)
    np.testing.assert_allclose(seen.astype(int), half, atol=1)


def test_a_mask_with_a_tile_at_byte_0(tmp_path: Path) -> None:
    path = tmp_path / "m.tif"
    tifffile.imwrite(path, np.ones((128, 128), np.uint8), tile=(64, 64), metadata=None)
    forget(path, (1,), offsets=True, counts=False)
    with MaskReader(path) as mask, pytest.raises(InputError, match="tile 1 is damaged: nothing c"):
        list(mask.bands())


def test_a_plane_that_is_missing_is_refused(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    planes = np.ascontiguousarray(np.moveaxis(picture, -1, 0))
    tifffile.imwrite(path, planes, photometric="rgb", planarconfig=2, tile=(64, 64), metadata=None)
    forget(path, (0, 70, 140, 71), offsets=True, counts=True)
    with open_slide(path) as slide:
        assert (slide.read_level(0, 0, 64, 64) == 255).all()
        with pytest.raises(InputError, match=r"tile \(column 1, row 0\) .*not all of it is stored"):
            slide.read_level(64, 0, 64, 64)


def forget(
    path: Path, pieces: Collection[int], *, offsets: bool, counts: bool, page: int = 0
) -> None:
    """Set to 0 what a file says of where some tiles or strips of a page are."""
    with tifffile.TiffFile(path) as file:
        found = file.pages[page].tags
        tags = [found[code] for code in (273, 324) if code in found and offsets]
        tags += [found[code] for code in (279, 325) if code in found and counts]
        places = [(tag.valueoffset, {3: 2, 4: 4, 16: 8}[tag.dtype]) for tag in tags]
    data = bytearray(path.read_bytes())
    for at, size in places:
        for piece in pieces:
            data[at + piece * size : at + (piece + 1) * size] = bytes(size)
    path.write_bytes(data)
