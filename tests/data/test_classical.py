"""The classical rule finds dark blue discs on a pink ground."""

import numpy as np
import pytest
from numpy.typing import NDArray

from genselfdiff.data.classical import otsu_nuclei

BLUE, PINK = (90, 60, 140), (230, 170, 200)


def field(mpp: float, *, side_um: float = 100) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Nuclei of 4 um radius, each with a pale spot, specks of 0.5 um, and the nuclei's truth."""
    size = round(side_um / mpp)
    y, x = np.indices((size, size)) * mpp
    image = np.empty((size, size, 3), np.uint8)
    image[:] = PINK
    truth = np.zeros((size, size), bool)
    for cx in (20, 50, 80):
        for cy in (20, 50, 80):
            distance = np.hypot(x - cx, y - cy)
            truth |= distance < 4
            image[distance < 4] = BLUE
            image[distance < 1] = PINK
            image[np.hypot(x - cx - 14, y - cy) < 0.5] = BLUE
    noise = np.random.default_rng(0).normal(0, 6, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8), truth


@pytest.mark.parametrize("mpp", [0.25, 0.5])
def test_nuclei_are_found_at_either_resolution(mpp: float) -> None:
    image, truth = field(mpp)
    found = otsu_nuclei(image, mpp)
    assert found.dtype == np.uint8 and set(np.unique(found)) == {0, 1}
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.9
    specks = np.zeros_like(truth)
    specks[:, round(32 / mpp) : round(37 / mpp)] = True
    assert not found[specks].any()


def test_field_of_one_colour_holds_no_nucleus() -> None:
    assert not otsu_nuclei(np.full((50, 60, 3), 240, np.uint8), 0.5).any()
