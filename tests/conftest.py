import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Generator
from pathlib import Path

# As the command does, and as early: threads that spin cost twenty times the time where another
# process wants the core.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import numpy as np
import pytest
import torch

# Triton's interpreter runs kernels on CPU tensors. It has to be asked for before anything imports
# Triton, and no further than this process: a build in a test compiles kernels.
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
    from genselfdiff.inference import shipped
    from genselfdiff.inference.model_info import ModelInfo
    from genselfdiff.inference.shipped_weights import write_weights
    from genselfdiff.models import create_model

    folder = tmp_path / "came with gsd"
    folder.mkdir()
    shutil.copy(shipped.FOLDER / "nuclei.json", folder)
    monkeypatch.setattr(shipped, "FOLDER", folder)
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
        write_weights(network.state_dict(), info, shipped.weights_file("nuclei"))
        return shipped.weights_file("nuclei")

    return make
