"""Slides of something like tissue, and known tissue of the same."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from genselfdiff.unknown.known_tissue import KnownTissue
from genselfdiff.unknown.learning import known_tissue

Uint8 = np.ndarray


def _tissue(height: int, width: int, seed: int) -> Uint8:
    """Pink ground with violet dots and some noise."""
    random = np.random.default_rng(seed)
    dots = ndimage.gaussian_filter((random.random((height, width)) < 0.01).astype(float), 3)
    dots = np.clip(dots / 0.012, 0, 1)[..., None]
    ground = ndimage.gaussian_filter(random.normal(size=(height, width)), 4)[..., None]
    pixels = (1 - dots) * (225, 150, 195) + dots * (90, 60, 140) + 60 * ground
    noisy = pixels + random.normal(0, 3, (height, width, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


@pytest.fixture
def tissue() -> Callable[[int, int, int], Uint8]:
    return _tissue


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes pixels as a slide of 0.5 um/px."""

    def write(pixels: Uint8, name: str = "slide.tif", mpp: float | None = 0.5) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        told = {} if mpp is None else {"resolution": (1e4 / mpp,) * 2, "resolutionunit": 3}
        tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", **told)
        return path

    return write


@pytest.fixture
def known(write: Callable[..., Path]) -> KnownTissue:
    for seed in range(3):
        write(_tissue(512, 512, seed), f"known/{seed}.tif")
    return known_tissue(write(_tissue(512, 512, 3), "known/3.tif").parent)
