import contextlib
import itertools
import os
import shutil
import signal
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING

# As the command does, and as early: threads that spin cost twenty times the time where another
# process wants the core.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from torch import nn

if TYPE_CHECKING:
    from genselfdiff.models.model_info import ModelInfo

# Triton's interpreter runs kernels on CPU tensors. It has to be asked for before anything imports
# Triton, and no further than this process: a build in a test compiles kernels.
if os.environ.get("GSD_TEST_DEVICE") != "cuda":
    os.environ["TRITON_INTERPRET"] = "1"
    with contextlib.suppress(ModuleNotFoundError):
        import triton

        triton.knobs.runtime.interpret = True
    del os.environ["TRITON_INTERPRET"]

# A shell that starts the tests in the background has them, and what they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Captured names that are no UTF-8 would not get from one process of xdist to the other."""
    report = yield
    report.sections = [
        (title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections
    ]
    return report


REFERENCE = Path(__file__).parent / "reference"


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    """Figures (float64) made by running the authors' code on fixed inputs."""
    with np.load(REFERENCE / "golden.npz") as archive:
        return {name: archive[name] for name in archive.files}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def ship(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Let gsd come with one small model of random weights, "nuclei"; its file.

    ``instances`` is whether it tells cores of objects.
    """
    from genselfdiff.models.model_info import ModelInfo
    from genselfdiff.models.registry import create_model
    from genselfdiff.models.shipped import catalogue
    from genselfdiff.models.shipped.weights import write_weights

    folder = tmp_path / "came with gsd"
    folder.mkdir()
    shutil.copy(catalogue.FOLDER / "nuclei.json", folder)
    monkeypatch.setattr(catalogue, "FOLDER", folder)
    monkeypatch.delenv("GSD_MODEL", raising=False)

    def make(*, instances: bool = False) -> Path:
        settings = {
            **{"architecture": "tiny", "width": 8, "tile_size": 64, "steps": 7},
            **{"classes": ["background", "nucleus"], "foreground": True, "instances": instances},
            **{"mpp": 0.5, "resample_to": 0.5},
        }
        info = ModelInfo(
            classes=("background", "nucleus"),
            colors=((0, 0, 0), (255, 0, 0)),
            mpp=0.5,
            tile_size=64,
            input_scaling="minus_one_one",
            architecture={"name": "tiny", "width": 8},
            training={"settings": settings},
            licence="CC-BY-4.0",
            instances=instances,
            attributions=("Some Set, CC BY 4.0: A. Author, https://example.org",),
        )
        network = create_model("tiny", out_channels=info.logits, width=8)
        write_weights(network.state_dict(), info, catalogue.weights_file("nuclei"))
        return catalogue.weights_file("nuclei")

    return make


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


@pytest.fixture
def conv_net() -> Callable[..., ConvNet]:
    def make(kernel: int = 3, classes: int = 3, layers: int = 2) -> ConvNet:
        torch.manual_seed(0)
        return ConvNet(kernel, classes, layers).eval()

    return make


@pytest.fixture(scope="session")
def info() -> Callable[..., "ModelInfo"]:
    from genselfdiff.models.model_info import ModelInfo

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
def darkness_model(tmp_path: Path, info: Callable[..., "ModelInfo"]) -> Path:
    from genselfdiff.models.model_file import save_model

    path = tmp_path / "darkness.ts"
    save_model(Darkness(), info(), path)
    return path


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
def precision(request: pytest.FixtureRequest) -> str:
    """A parameter; skips bfloat16 where torch's attention fails in it.

    It looks at the processor for AMX, and then finds its own code for less, where
    ATEN_CPU_CAPABILITY asks for that.
    """
    from genselfdiff.machine import cpu_capabilities

    lessened = "AVX512" not in torch.backends.cpu.get_cpu_capability()
    if request.param == "bfloat16" and lessened and cpu_capabilities().get("amx_bf16"):
        pytest.skip("torch's attention fails in bfloat16 with this ATEN_CPU_CAPABILITY")
    return str(request.param)
