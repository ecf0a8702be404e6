"""A way to write generated images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

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
