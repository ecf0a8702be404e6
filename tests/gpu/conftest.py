"""Fixtures of the tests that a GPU runs; without one they run on the CPU, interpreted.

GSD_TEST_DEVICE says where, and without it nothing here is collected: `benchmarks/gpu_day.py` runs
these tests on a GPU, and its rehearsal, which is one of the other tests, on the CPU.
"""

import os
import sys
from collections.abc import Iterator

import pytest
import torch
from interpreting import interpreted_kernels

DEVICE = torch.device(os.environ.get("GSD_TEST_DEVICE", "cpu"))
ON_GPU = DEVICE.type == "cuda"

collect_ignore_glob = [] if "GSD_TEST_DEVICE" in os.environ else ["test_*.py"]

on_a_gpu = pytest.mark.skipif(not ON_GPU, reason="not here: needs a GPU")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "ignore:.*deterministic")


@pytest.fixture
def device() -> torch.device:
    return DEVICE


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The GPU's kernels run, or an error says why not."""
    if ON_GPU:
        monkeypatch.setenv("GSD_KERNELS", "triton")
        yield
    else:
        with interpreted_kernels():
            yield


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """What an operation allocates and does not write is NaN."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def alive() -> Iterator[None]:
    """After an error on the GPU nothing more can be asked of this process: it ends at once."""
    yield
    if ON_GPU:
        try:
            torch.cuda.synchronize()
        except RuntimeError as error:
            print(f"the GPU does not go on: {error}", file=sys.__stderr__, flush=True)
            os._exit(70)
