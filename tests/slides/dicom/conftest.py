"""Folders of DICOM files."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pydicom import Dataset

Uint8 = NDArray[np.uint8]


@pytest.fixture(scope="session")
def picture(picture: Uint8) -> Uint8:
    """(207, 301, 3): 20 tiles of 64 x 64 pixels."""
    return np.ascontiguousarray(picture[:207, :301])


@pytest.fixture
def dicom(tmp_path: Path) -> Callable[..., Path]:
    """Write datasets as files 0.dcm, 1.dcm ... of a folder, whose path is returned."""

    def write(*made: "Dataset", folder: str = "slide", first: int = 0) -> Path:
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        for number, each in enumerate(made, first):
            each.save_as(place / f"{number}.dcm", enforce_file_format=True)
        return place

    return write
