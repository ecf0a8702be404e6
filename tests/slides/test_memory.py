"""Reading takes memory that follows what is asked, not what is there."""

import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from genselfdiff.slides import Slide, open_slide
from genselfdiff.slides.stored import stored_image
from genselfdiff.slides.stored.piece_cache import PieceCache

SINGLE_STRIPS: dict[str, dict[str, object]] = {
    "grey 16": {"samples": 1, "dtype": "u2"},
    "rgb 16": {"samples": 3, "dtype": "u2"},
    "rgba 8": {"samples": 4, "dtype": "u1", "extrasamples": ["unassalpha"]},
    "rgba 16": {"samples": 4, "dtype": "u2", "extrasamples": ["unassalpha"]},
    "ycbcr": {"samples": 3, "dtype": "u1", "photometric": "ycbcr", "subsampling": (1, 1)},
}


@pytest.mark.parametrize("kind", SINGLE_STRIPS)
def test_one_large_strip_takes_little_beside_its_pixels(
    tiff: Callable[..., Path], kind: str
) -> None:
    options = dict(SINGLE_STRIPS[kind])
    samples, dtype = options.pop("samples"), np.dtype(str(options.pop("dtype")))
    side = 2000
    pixels = np.full((side, side, samples) if samples != 1 else (side, side), 77, dtype)
    path = tiff(pixels, rowsperstrip=side, compression="zlib", **options)
    with open_slide(path) as slide:
        tracemalloc.start()
        try:
            slide.read_level(0, 0, 1, 1)
            peak = tracemalloc.get_traced_memory()[1]
            bound = slide.memory_bound()
        finally:
            tracemalloc.stop()
    assert peak < (3.5 + 1.1 * samples * dtype.itemsize) * side**2 + 20 * 2**20
    assert peak < bound


@pytest.fixture
def small_cache(monkeypatch: pytest.MonkeyPatch) -> PieceCache:
    cache = PieceCache(100_000, 10 * 2**20)
    monkeypatch.setattr(stored_image, "_CACHE", cache)
    return cache


def count_decoding(slide: Slide, monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[int, int]]:
    level, decoded = slide._stored.levels[0], Counter[tuple[int, int]]()
    decode = level.decode

    def counted(column: int, row: int) -> np.ndarray:
        decoded[column, row] += 1
        return decode(column, row)

    monkeypatch.setattr(level, "decode", counted)
    return decoded


@pytest.mark.parametrize("layout", [{"tile": (64, 64)}, {"rowsperstrip": 48}])
@pytest.mark.parametrize("scale", [1.0, 2.0, 1.7])
def test_every_tile_of_a_wide_slide_is_decoded_once(
    tiff: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    small_cache: PieceCache,
    layout: dict[str, object],
    scale: float,
) -> None:
    """4 MB of pixels, a cache of 0.1: a row of windows does not fit unless it is asked to."""
    path = tiff(np.zeros((600, 2400, 3), np.uint8), compression="zlib", **layout)
    with open_slide(path, mpp=0.25) as slide:
        decoded = count_decoding(slide, monkeypatch)
        view = slide.at_mpp(0.25 * scale)
        view.hold_rows(view.width, 128)
        for y in range(0, view.height - 128, 96):
            for x in range(0, view.width - 128, 96):
                view.read(x, y, 128, 128)
        assert len(decoded) >= 10
        assert set(decoded.values()) == {1}
        assert slide.memory_bound() < 0.9 * 600 * 2400 * 3, "not the whole slide"
    assert small_cache.capacity == 100_000, "the slide is closed"


def test_every_tile_is_decoded_once_for_a_thumbnail(
    tiff: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, small_cache: PieceCache
) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (1000, 2400, 3)).astype(np.uint8)
    with open_slide(tiff(pixels, compression="zlib", tile=(64, 64))) as slide:
        decoded = count_decoding(slide, monkeypatch)
        thumbnail = slide.thumbnail(600)
        assert len(decoded) == 16 * 38
        assert set(decoded.values()) == {1}
    mean = pixels.reshape(250, 4, 600, 4, 3).mean(axis=(1, 3))
    assert abs(thumbnail - mean).max() <= 0.51


def test_a_long_overview_shows_a_bar(
    tiff: Callable[..., Path], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiff(np.zeros((600, 2400, 3), np.uint8), tile=(64, 64), compression="zlib")
    with open_slide(path) as slide:
        level, decode = slide._stored.levels[0], slide._stored.levels[0].decode

        def slow(column: int, row: int) -> np.ndarray:
            time.sleep(0.02)
            return decode(column, row)

        monkeypatch.setattr(level, "decode", slow)
        slide.thumbnail(300, progress=True)
    assert "slide.tif: overview" in capfd.readouterr().err
    with open_slide(path) as slide:
        slide.thumbnail(300, progress=True)
    assert capfd.readouterr().err == "", "a bar that flashes up helps nobody"


def test_what_lies_above_is_forgotten(
    tiff: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiff(np.zeros((600, 600, 3), np.uint8), tile=(64, 64), compression="zlib")
    with open_slide(path, mpp=0.25) as slide:
        decoded = count_decoding(slide, monkeypatch)
        view = slide.at_mpp(0.5)
        view.read(0, 0, 300, 300)
        view.forget_above(100)  # row 200 of the slide: three rows of tiles end above it
        view.read(0, 0, 300, 300)
        assert {row for (_, row), times in decoded.items() if times == 2} == {0, 1, 2}
