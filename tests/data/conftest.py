"""Ways to write generated images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from genselfdiff.data.labelled.pairs import Pair

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write an array below ``tmp_path`` as an image, with its resolution if ``mpp`` is given."""

    def write(name: str, array: NDArray[np.generic], *, mpp: float | None = None) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        options = {} if mpp is None else {"dpi": (25400 / mpp, 25400 / mpp)}
        Image.fromarray(array).save(path, **options)
        return path

    return write


def image_of(labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """An image whose red channel is the labels and whose other channels are the place."""
    y, x = np.indices(labels.shape)
    return np.stack([labels, x % 256, y % 256], axis=-1).astype(np.uint8)


@pytest.fixture
def pair(save: Save) -> Callable[..., Pair]:
    """Save labels as a mask and `image_of` them as its image."""

    def make(labels: NDArray[np.integer], stem: str = "a") -> Pair:
        image = save(f"images/{stem}.png", image_of(labels))
        return Pair(stem, image, save(f"masks/{stem}.png", labels))

    return make


@pytest.fixture
def images(tmp_path):
    """A folder with the images a.png and b.png of 12 x 9 pixels."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name in "ab":
        pixels = np.random.default_rng(0).integers(0, 255, (9, 12, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)


@pytest.fixture
def slide(tmp_path, image):
    """Of 0.5 um."""
    tifffile.imwrite(
        tmp_path / "slide.tif",
        image,
        photometric="rgb",
        tile=(64, 64),
        resolution=(20_000, 20_000),
        resolutionunit="CENTIMETER",
    )
    return tmp_path / "slide.tif"
