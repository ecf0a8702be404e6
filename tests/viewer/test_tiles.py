"""Tiles are the pixels of slide, mask and probabilities, at every level."""

import io
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from genselfdiff.masks.mask_writer import halve_labels
from genselfdiff.slides import ScaledView, open_slide
from genselfdiff.viewer.layers import Layer
from genselfdiff.viewer.tile_cache import TileCache
from genselfdiff.viewer.tiles import NoTile, SlideTiles, TilePlace, layer_tile, levels

Make = Callable[..., Path]


def picture(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def whole(tile: Callable[[TilePlace], bytes], level: int, side: int) -> np.ndarray:
    """All tiles of a level, laid beside each other until there is none."""
    rows: list[np.ndarray] = []
    while True:
        row: list[np.ndarray] = []
        try:
            while True:
                row.append(picture(tile(TilePlace(level, len(row), len(rows)))))
        except NoTile:
            if not row:
                return np.concatenate(rows)
            assert all(tile.shape[1] == side for tile in row[:-1])
            rows.append(np.concatenate(row, axis=1))


@pytest.mark.parametrize("level", [0, 1, 2, 3, 6, 10])
def test_slide(slide: Make, level: int) -> None:
    path = slide()
    tiles = SlideTiles(path)
    assert tiles.side == 256
    shown = whole(tiles.tile, level, 256)
    assert shown.shape == (-(-900 >> level), -(-1300 >> level), 3)
    with open_slide(path) as opened:
        view = ScaledView(opened, 2.0**level)
        expected = view.read(0, 0, view.width, view.height)
    height, width = expected.shape[:2]
    assert np.abs(shown[:height, :width].astype(int) - expected).mean() < 6  # it is JPEG


def test_a_slide_without_a_pyramid_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "flat.tif"
    y, x = np.mgrid[:3100, :4700]
    pixels = np.stack((np.sin(x / 300), np.sin(y / 200), np.sin((x + y) / 500)), axis=2)
    pixels = (128 + 99 * pixels).astype(np.uint8)
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb")
    tiles = SlideTiles(path)
    read = tiles.slide.read_level
    areas: list[int] = []

    def counted(x: int, y: int, width: int, height: int, level: int = 0) -> np.ndarray:
        areas.append(width * height)
        return read(x, y, width, height, level)

    monkeypatch.setattr(tiles.slide, "read_level", counted)
    shown = whole(tiles.tile, 5, 256)
    for level in (6, 7, 12):
        whole(tiles.tile, level, 256)
    assert sum(areas) == 4700 * 3100
    assert max(areas) <= 2**20
    with open_slide(path) as opened:
        view = ScaledView(opened, 32.0)
        expected = view.read(0, 0, view.width, view.height)
    assert shown.shape == (97, 147, 3)
    assert np.abs(shown[:96, :146].astype(int) - expected[:96, :146]).mean() < 2


def test_a_level_of_one_pixel_is_the_last(slide: Make) -> None:
    tiles = SlideTiles(slide())
    assert levels(1300, 900) == 12
    assert picture(tiles.tile(TilePlace(11, 0, 0))).shape == (1, 1, 3)
    for place in (
        TilePlace(12, 0, 0),
        TilePlace(0, 6, 0),
        TilePlace(0, 0, 4),
        TilePlace(10**9, 0, 0),
    ):
        with pytest.raises(NoTile):
            tiles.tile(place)


@pytest.mark.parametrize("level", [0, 1, 2, 4])
def test_mask(mask: Make, level: int) -> None:
    path = mask()
    expected = tifffile.imread(path, key=0)
    for _ in range(level):
        expected = halve_labels(expected)
    layer = Layer(path)
    # Below the smallest picture that is stored, pixels are left out.
    shown = whole(lambda place: layer_tile(layer, place, 0), level, 512)
    if level < 2:
        np.testing.assert_array_equal(shown, expected)
    else:
        assert shown.shape == expected.shape
        assert set(np.unique(shown)) <= {0, 1, 2}
    assert layer.names == ["background", "stroma", "nucleus"]
    assert layer.colours[2] == (200, 30, 160)


def test_mask_without_a_pyramid(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 5, (333, 457), np.uint8)
    tifffile.imwrite(tmp_path / "m.tif", labels, rowsperstrip=16, photometric="minisblack")
    layer = Layer(tmp_path / "m.tif")
    shown = whole(lambda place: layer_tile(layer, place, 0), 2, 512)
    taken = [np.minimum(np.arange(n) * 4 + 2, m - 1) for n, m in ((84, 333), (115, 457))]
    np.testing.assert_array_equal(shown, labels[np.ix_(*taken)])
    assert layer.names == [f"class {label}" for label in range(5)]
    assert layer.colours[1] != layer.colours[2]


def test_probabilities(probabilities: Make) -> None:
    layer = Layer(probabilities())
    assert (layer.kind, layer.planes) == ("probabilities", 3)
    for plane, value in enumerate((10, 20, 225)):
        assert (picture(layer_tile(layer, TilePlace(1, 0, 0), plane)) == value).all()
    with pytest.raises(NoTile):
        layer_tile(layer, TilePlace(1, 0, 0), 3)


def test_threads_read_from_one_mask(mask: Make) -> None:
    layer = Layer(mask())
    expected = [layer_tile(layer, TilePlace(0, column, 0), 0) for column in range(3)]
    wrong: list[int] = []

    def read() -> None:
        for i in range(60):
            if layer_tile(layer, TilePlace(0, i % 3, 0), 0) != expected[i % 3]:
                wrong.append(i)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_cache_holds_what_was_asked_for_last() -> None:
    cache, made = TileCache(300), []

    def get(key: int, size: int = 100) -> None:
        cache.get(key, lambda: made.append(key) or bytes(size))

    for key in (1, 2, 3, 1, 4, 1, 2):
        get(key)
    assert made == [1, 2, 3, 4, 2]
    get(5, 301)
    get(1)
    assert made[-1] == 5
