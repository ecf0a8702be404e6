"""A model that tells cells, slides, and what segmenting one gives."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from genselfdiff.models.model_file import save_model
from genselfdiff.models.model_info import ModelInfo
from genselfdiff.segmenting.output_files import OutputFiles
from genselfdiff.segmenting.result import SegmentResult


class Cells(nn.Module):
    """Class 1 where green is dark, and the core of a cell where red is."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        red, green = self.scale * x[:, :1], self.scale * x[:, 1:2]
        return torch.cat((green, -green, red, -red), dim=1)


@pytest.fixture
def cells_model(tmp_path: Path, info: Callable[..., ModelInfo]) -> Path:
    path = tmp_path / "cells.ts"
    save_model(Cells(), info(instances=True), path)
    return path


@pytest.fixture
def cells() -> Callable[[int, int], NDArray[np.uint8]]:
    """Rows of pairs of discs that touch, without a neck between them, and their red-less cores."""

    def make(height: int, width: int) -> NDArray[np.uint8]:
        y, x = np.mgrid[:height, :width]
        y, x = np.abs(y % 40 - 20), x % 60
        inside = (y < 10) & (np.abs(x - 30) < 20)
        cores = (y < 5) & (np.abs(np.abs(x - 30) - 10) < 5)
        image = np.where(inside[..., None], (190, 40, 130), (225, 160, 200))
        return np.where(cores[..., None], (60, 40, 130), image).astype(np.uint8)

    return make


@pytest.fixture
def make_result() -> Callable[..., SegmentResult]:
    """What segmenting a slide of 4000 x 3000 pixels might have given."""

    def make(**changes: object) -> SegmentResult:
        values: dict[str, object] = {
            **{"slide": Path("a.svs"), "files": OutputFiles(Path("a_mask.tif"))},
            **{
                "finished_before": False,
                "blank_tiles": 0,
                "width": 4000,
                "height": 3000,
                "mpp": 0.5,
                "scale": 1.0,
            },
            **{"tiles": 70, "skipped": 30, "seconds": 12.34, "device": "cpu"},
            **{"precision": "float32", "pixels": {"background": 9_000_000, "nucleus": 3_000_000}},
            "objects": {"nucleus": 1200},
        }
        return SegmentResult(**(values | changes))  # type: ignore[arg-type]

    return make
