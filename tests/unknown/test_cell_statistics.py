"""What the numbers of a cell mean, and that a cell knows nothing of others."""

import numpy as np
import pytest
from scipy import ndimage

from genselfdiff.unknown.cell_statistics import STATISTICS, cell_statistics


def of(pixels: np.ndarray, name: str) -> float:
    return float(cell_statistics(pixels, len(pixels))[0, 0, STATISTICS.index(name)])


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)


def test_each_cell_is_described_by_itself() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (96, 160, 3), np.uint8)
    found = cell_statistics(pixels, 32)
    assert found.shape == (3, 5, len(STATISTICS))
    alone = cell_statistics(np.ascontiguousarray(pixels[32:64, 96:128]), 32)[0, 0]
    np.testing.assert_array_equal(found[1, 3], alone)


def test_colours_are_taken_apart_into_stains() -> None:
    violet = np.broadcast_to(np.uint8((90, 80, 150)), (64, 64, 3))
    pink = np.broadcast_to(np.uint8((240, 120, 220)), (64, 64, 3))
    assert of(violet, "haematoxylin") > 3 * of(pink, "haematoxylin")
    assert of(pink, "eosin") > 3 * abs(of(violet, "eosin"))
    green = np.broadcast_to(np.uint8((60, 160, 60)), (64, 64, 3))
    assert of(green, "other colour") > 0.1 > of(violet, "other colour")
    assert of(np.full((64, 64, 3), 120, np.uint8), "saturation") == 0


@pytest.mark.parametrize("name", ["gradients", "gradients, 2 px", "curvature", "edges"])
def test_blur_takes_texture_away(name: str) -> None:
    blurred = ndimage.gaussian_filter(noise(), (2, 2, 0))
    assert of(blurred, name) < of(noise(), name)
    assert of(blurred, "flat pixels") > of(noise(), "flat pixels")


def test_entropy_is_in_bits_of_32_shades() -> None:
    halves = np.zeros((64, 64, 3), np.uint8)
    halves[:32] = 200
    assert of(halves, "entropy") == pytest.approx(1)
    assert of(np.zeros((64, 64, 3), np.uint8), "entropy") == 0


def test_direction_sees_stripes_whichever_way_they_run() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[::2] = 200
    turned = np.ascontiguousarray(stripes.swapaxes(0, 1))
    assert of(stripes, "direction") == pytest.approx(of(turned, "direction"))
    assert of(stripes, "direction") > 5 > 1 > of(noise(), "direction")
