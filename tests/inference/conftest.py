"""Small networks, model files and slides."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from torch import nn

from genselfdiff.inference.device import has_fast_bfloat16
from genselfdiff.inference.model_file import save_model
from genselfdiff.inference.model_info import ModelInfo
from genselfdiff.inference.output_files import OutputFiles
from genselfdiff.inference.segment_result import SegmentResult


class ConvNet(nn.Module):
    """Convolutions of one kernel size: what a pixel becomes depends on ``reach`` around it."""

    def __init__(self, kernel: int, classes: int, layers: int = 2) -> None:
        super().__init__()
        widths = [3, *[8] * (layers - 1), classes]
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, kernel, padding=kernel // 2) for a, b in itertools.pairwise(widths)
        )
        self.reach = layers * (kernel // 2)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        x = x + t.to(x.dtype).reshape(-1, 1, 1, 1)
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i + 1 < len(self.layers):
                x = torch.relu(x)
        return 10 * x


class Darkness(nn.Module):
    """Class 1 where the green channel (as scaled to -1..1) is below ``threshold``."""

    def __init__(self, threshold: float = 0.0) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(threshold))

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        green = 50 * (x[:, 1:2] - self.threshold)
        return torch.cat((green, -green), dim=1)


class Cells(nn.Module):
    """Class 1 where green is dark, and the core of a cell where red is."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        red, green = self.scale * x[:, :1], self.scale * x[:, 1:2]
        return torch.cat((green, -green, red, -red), dim=1)


@pytest.fixture
def conv_net() -> Callable[..., ConvNet]:
    def make(kernel: int = 3, classes: int = 3, layers: int = 2) -> ConvNet:
        torch.manual_seed(0)
        return ConvNet(kernel, classes, layers).eval()

    return make


@pytest.fixture(scope="session")
def info() -> Callable[..., ModelInfo]:
    def make(classes: int = 2, **changes: object) -> ModelInfo:
        values: dict[str, object] = {
            "classes": ("background", "nucleus", "stroma", "fat")[:classes],
            "colors": ((0, 0, 0), (255, 0, 0), (0, 200, 0), (9, 8, 250))[:classes],
            "mpp": 0.5,
            "tile_size": 64,
            "input_scaling": "minus_one_one",
            "architecture": {"name": "test"},
            "training": {"seed": 3},
            "licence": "CC0-1.0",
        }
        return ModelInfo(**(values | changes))  # type: ignore[arg-type]

    return make


@pytest.fixture
def darkness_model(tmp_path: Path, info: Callable[..., ModelInfo]) -> Path:
    path = tmp_path / "darkness.ts"
    save_model(Darkness(), info(), path)
    return path


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
def picture() -> Callable[..., NDArray[np.uint8]]:
    """Pink ground with dark discs: tissue everywhere, structure everywhere."""

    def make(height: int, width: int, seed: int = 0, size: int = 12) -> NDArray[np.uint8]:
        random = np.random.default_rng(seed)
        y, x = np.mgrid[:height, :width]
        cells = np.hypot(y % (3 * size) - 1.5 * size, x % (3 * size) - 1.5 * size) < size
        image = np.where(cells[..., None], (90, 40, 130), (225, 160, 200))
        noise = random.integers(-12, 13, (height, width, 3))
        return (image + noise).clip(0, 255).astype(np.uint8)

    return make


@pytest.fixture
def write_slide(tmp_path: Path) -> Callable[..., Path]:
    def write(
        image: NDArray[np.uint8],
        mpp: float | None = 0.5,
        name: str = "slide.tif",
        compression: str | None = "deflate",
    ) -> Path:
        resolution = (
            {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": 3}
        )
        tifffile.imwrite(
            tmp_path / name,
            image,
            photometric="rgb",
            tile=(128, 128),
            compression=compression,
            **resolution,
        )
        return tmp_path / name

    return write


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


@pytest.fixture
def precision(request: pytest.FixtureRequest) -> str:
    """A parameter; skips bfloat16 where torch's attention fails in it.

    It looks at the processor for AMX, and then finds its own code for less, where
    ATEN_CPU_CAPABILITY asks for that.
    """
    lessened = "AVX512" not in torch.backends.cpu.get_cpu_capability()
    if request.param == "bfloat16" and lessened and has_fast_bfloat16(torch.device("cpu")):
        pytest.skip("torch's attention fails in bfloat16 with this ATEN_CPU_CAPABILITY")
    return str(request.param)
