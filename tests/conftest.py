import contextlib
import os
import signal
from collections.abc import Generator
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
