"""Slides of something like tissue, and a model that is sure of some of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from scipy import ndimage
from torch import nn

from genselfdiff.models.model_file import LoadedModel
from genselfdiff.models.wrapping import wrap_model


def _tissue(height: int, width: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    ground = ndimage.gaussian_filter(random.normal(size=(height, width)), 4)[..., None]
    noisy = (210, 130, 185) + 90 * ground + random.normal(0, 3, (height, width, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a slide of 0.5 um/px."""

    def write(pixels: np.ndarray, name: str = "slide.tif") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        resolution = {"resolution": (2e4, 2e4), "resolutionunit": 3}
        tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", **resolution)
        return path

    return write


@pytest.fixture
def tissue() -> Callable[[int, int, int], np.ndarray]:
    return _tissue


@pytest.fixture
def redness() -> LoadedModel:
    """A model that is unsure where red is 128, and sees each pixel by itself."""
    layer = nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[1, 0] = 20.0
        layer.bias.copy_(torch.tensor([0.0, -20 * 128 / 255]))
    return wrap_model(layer, classes=["other", "red"], mpp=0.5, size_multiple=8, device="cpu")


@pytest.fixture
def edges_on_the_right() -> LoadedModel:
    """A model that sees how much brighter a pixel is than its neighbour on the right."""
    layer = nn.Conv2d(3, 2, 3, padding=1)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
        layer.weight[1, :, 1, 1], layer.weight[1, :, 1, 2] = 20.0, -20.0
    return wrap_model(layer, classes=["other", "edge"], mpp=0.5, size_multiple=8, device="cpu")
