"""Views at other resolutions: right in place, right in value, the same through every window."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from genselfdiff.errors import InputError
from genselfdiff.slides import open_slide, scaled_view

MPPS = [0.1, 0.3, 0.5, 0.51, 0.7, 1.0, 1.3, 2.0, 2.6, 9.1]


def area_means(picture: np.ndarray, scale: float, height: int, width: int) -> np.ndarray:
    """Mean over squares of ``scale`` pixels, by a fine integral: slow and plain."""

    def matrix(count: int, length: int) -> np.ndarray:
        edges = np.arange(count + 1) * scale
        overlap = np.minimum(edges[1:, None], np.arange(length) + 1) - np.maximum(
            edges[:-1, None], np.arange(length)
        )
        weights = np.maximum(overlap, 0)
        weights[:, -1] += np.maximum(edges[1:] - np.maximum(edges[:-1], length), 0)
        return weights / scale

    rows, columns = matrix(height, picture.shape[0]), matrix(width, picture.shape[1])
    return np.einsum("ij,jkc,lk->ilc", rows, picture.astype(float), columns, optimize=True)


@pytest.mark.parametrize("mpp", MPPS)
def test_size_and_scale(tiff: Callable[..., Path], picture: np.ndarray, mpp: float) -> None:
    with open_slide(tiff(picture), mpp=0.5) as slide:
        view = slide.at_mpp(mpp)
        assert view.scale == pytest.approx(mpp / 0.5)
        assert (view.width, view.height) == (round(602 / view.scale), round(413 / view.scale))
        assert view.read(0, 0, view.width, view.height).shape == (view.height, view.width, 3)


@pytest.mark.parametrize("mpp", [mpp for mpp in MPPS if mpp > 0.5])
def test_reduction_is_the_mean_of_what_a_pixel_covers(
    tiff: Callable[..., Path], picture: np.ndarray, mpp: float
) -> None:
    with open_slide(tiff(picture), mpp=0.5) as slide:
        view = slide.at_mpp(mpp)
        pixels = view.read(0, 0, view.width, view.height)
        expected = area_means(picture, view.scale, view.height, view.width)
        assert abs(pixels - expected).max() <= 0.51


@pytest.mark.parametrize("mpp", [1.0, 2.0, 4.0, 8.0])
def test_whole_squares_have_exact_means(
    tiff: Callable[..., Path], picture: np.ndarray, mpp: float
) -> None:
    with open_slide(tiff(picture), mpp=0.5) as slide:
        view = slide.at_mpp(mpp)
        expected = np.rint(area_means(picture, view.scale, view.height, view.width))
        assert (view.read(0, 0, view.width, view.height) == expected).all()
        # Not beyond the last stored pixel: the other way to the same numbers.
        width, height = int(602 / view.scale), int(413 / view.scale)
        assert (view.read(0, 0, width, height) == expected[:height, :width]).all()
        assert (view.read(1, 2, width - 1, 5) == expected[2:7, 1:width]).all()


def test_enlargement_interpolates_between_pixel_centres(tiff: Callable[..., Path]) -> None:
    ramp = np.arange(0, 250, 10, dtype=np.uint8)
    picture = np.stack([np.tile(ramp, (20, 1))] * 3, axis=-1)
    with open_slide(tiff(picture), mpp=0.5) as slide:
        row = slide.at_mpp(0.25).read(0, 3, 50, 1)[0, :, 0]
        centres = (np.arange(50) + 0.5) / 2 - 0.5
        assert abs(row - np.clip(centres * 10, 0, 240)).max() <= 0.5


@pytest.mark.parametrize("mpp", MPPS)
@pytest.mark.parametrize("source_pixels", [2**9, 2**20])
def test_a_pixel_is_the_same_through_every_window(
    pyramid: Callable[..., Path],
    mpp: float,
    source_pixels: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with open_slide(pyramid(), mpp=0.5) as slide:
        view = slide.at_mpp(mpp)
        whole = view.read(0, 0, view.width, view.height).astype(int)
        monkeypatch.setattr(scaled_view, "_SOURCE_PIXELS", source_pixels)
        rng = np.random.default_rng(0)
        for _ in range(12):
            w, h = (int(rng.integers(1, min(90, side) + 1)) for side in (view.width, view.height))
            x, y = int(rng.integers(view.width - w + 1)), int(rng.integers(view.height - h + 1))
            window = view.read(x, y, w, h)
            assert abs(window - whole[y : y + h, x : x + w]).max() <= 1


@pytest.mark.parametrize(
    ("mpp", "level"),
    [(0.5, 0), (0.9, 0), (0.978, 0), (0.985, 1), (1.0, 1), (1.9, 1), (1.97, 2), (2.0, 2)],
)
def test_the_smallest_level_that_is_fine_enough_is_read(
    pyramid: Callable[..., Path], picture: np.ndarray, mpp: float, level: int
) -> None:
    step = 2**level
    darkened = picture if level == 0 else picture[::step, ::step] // 2 + step
    with open_slide(pyramid(), mpp=0.5) as slide:
        view = slide.at_mpp(mpp)
        pixels = view.read(10, 10, 100, 80)
        expected = area_means(darkened, view.scale / step, 90, 110)[10:, 10:]
        # Below the level's own step pixels are interpolated, which is almost the mean.
        assert abs(pixels - expected).max() <= (0.51 if view.scale >= step else 0.75)


def test_levels_lie_on_each_other(tiff: Callable[..., Path], picture: np.ndarray) -> None:
    """A view from a mean-reduced level equals the view from level 0, at the far edge too."""
    even = picture[:412, :600]
    half = even.reshape(206, 2, 300, 2, 3).mean(axis=(1, 3))
    path = tiff(even, "plain.tif")
    with tifffile.TiffWriter(path.with_name("pyramid.tif")) as writer:
        writer.write(even, photometric="rgb", tile=(64, 64))
        writer.write(np.rint(half).astype(np.uint8), photometric="rgb", tile=(64, 64))
    with open_slide(path, mpp=0.5) as plain, open_slide(writer.filehandle.path, mpp=0.5) as levels:
        assert len(levels.levels) == 2
        a, b = plain.at_mpp(1.7), levels.at_mpp(1.7)
        window = (a.width - 60, a.height - 50, 60, 50)
        assert abs(a.read(*window).astype(int) - b.read(*window)).mean() < 2.5


def test_level_0_needs_no_mpp(tiff: Callable[..., Path], picture: np.ndarray) -> None:
    with open_slide(tiff(picture)) as slide:
        view = slide.at_mpp(None)
        assert (view.width, view.height, view.scale) == (602, 413, 1.0)
        np.testing.assert_array_equal(view.read(5, 6, 70, 80), picture[6:86, 5:75])


def test_another_resolution_needs_the_slides_own(
    tiff: Callable[..., Path], picture: np.ndarray
) -> None:
    with open_slide(tiff(picture)) as slide, pytest.raises(InputError, match=r"slide\.tif.*--mpp"):
        slide.at_mpp(0.5)


@pytest.mark.parametrize("mpp", [0.0, -1.0, 0.009, 101.0, float("nan"), float("inf")])
def test_mpp_out_of_range(tiff: Callable[..., Path], picture: np.ndarray, mpp: float) -> None:
    path = tiff(picture)
    with pytest.raises(InputError, match=r"must be between 0\.01 and 100 um/px"):
        open_slide(path, mpp=mpp)
    with open_slide(path, mpp=0.5) as slide, pytest.raises(InputError, match="must be between"):
        slide.at_mpp(mpp)


@pytest.mark.parametrize(("slide_mpp", "mpp"), [(2.0, 0.01), (0.01, 20.0)])
def test_absurd_scales(
    tiff: Callable[..., Path], picture: np.ndarray, slide_mpp: float, mpp: float
) -> None:
    with (
        open_slide(tiff(picture), mpp=slide_mpp) as slide,
        pytest.raises(InputError, match="check --mpp"),
    ):
        slide.at_mpp(mpp)


def test_windows_outside(tiff: Callable[..., Path], picture: np.ndarray) -> None:
    with open_slide(tiff(picture), mpp=0.5) as slide:
        view = slide.at_mpp(1.0)
        with pytest.raises(ValueError, match="not inside 301 x 206"):
            view.read(0, 0, 302, 1)
