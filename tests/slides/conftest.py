"""Generated slides: a picture with structure at several scales, stored in many ways."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

Uint8 = NDArray[np.uint8]


@pytest.fixture(scope="session")
def picture() -> Uint8:
    """(413, 602, 3): odd sizes, no two rows or columns alike."""
    y, x = np.mgrid[:413, :602]
    waves = [128 + 60 * np.sin(x / 9 + k) + 60 * np.cos(y / (7 + k) + x / 31) for k in range(3)]
    return np.clip(np.stack(waves, axis=-1), 0, 255).astype(np.uint8)


@pytest.fixture
def tiff(tmp_path: Path) -> Callable[..., Path]:
    """Write an array as a TIFF of one page; keywords go to tifffile."""

    def write(pixels: NDArray[np.generic], name: str = "slide.tif", **options: object) -> Path:
        path = tmp_path / name
        if pixels.ndim == 3 and "photometric" not in options:
            options["photometric"] = "rgb"
        tifffile.imwrite(path, pixels, **options)
        return path

    return write


@pytest.fixture
def pyramid(tmp_path: Path, picture: Uint8) -> Callable[..., Path]:
    """Write the picture with two smaller levels, as a chain of pages or as SubIFDs."""

    def write(name: str = "pyramid.tif", *, subifds: bool = False, **options: object) -> Path:
        path = tmp_path / name
        layout: dict[str, object] = {"tile": (64, 64), "photometric": "rgb", **options}
        with tifffile.TiffWriter(path, ome=name.endswith(".ome.tif")) as writer:
            writer.write(picture, subifds=2 if subifds else 0, **layout)
            layout.pop("metadata", None)
            for step in (2, 4):
                # Levels tell themselves apart by their colours.
                level = picture[::step, ::step] // 2 + np.uint8(step)
                writer.write(level, subfiletype=1, metadata=None, **layout)
        return path

    return write
