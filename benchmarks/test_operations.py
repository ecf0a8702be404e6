"""Times of the operations in ``operations.py`` on one thread; ``make bench`` prints the table.

Times are process CPU time, which is steadier than wall time on a shared machine.
"""

import time
from collections.abc import Iterator

import pytest
import torch
from operations import CASES, Case
from pytest_benchmark.fixture import BenchmarkFixture

from genselfdiff.inference.device import keep_freed_memory
from genselfdiff.kernels import native

pytestmark = [
    pytest.mark.benchmark(timer=time.process_time, warmup=True, min_rounds=20),
    pytest.mark.skipif(not native.available(), reason="no native kernels installed"),
]


@pytest.fixture(autouse=True, scope="module")
def as_training_does() -> Iterator[None]:
    keep_freed_memory()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def copy_bandwidth() -> float:
    """Bytes a second, read and written, of copying 256 MiB."""
    source = torch.randn(1 << 26)
    target = torch.empty_like(source)
    times = []
    for _ in range(7):
        begin = time.process_time()
        target.copy_(source)
        times.append(time.process_time() - begin)
    return 2 * source.nbytes / sorted(times)[3]


@pytest.mark.parametrize(
    ("case", "form"),
    [pytest.param(case, form, id=f"{case.name}: {form}") for case in CASES for form in case.forms],
)
def test_operation(
    benchmark: BenchmarkFixture, copy_bandwidth: float, case: Case, form: str
) -> None:
    benchmark.group = case.name
    inputs = case.inputs()
    function = case.forms[form]
    # A time counts only for the right numbers; torch.randn's noise is another one than ours.
    found = function(*inputs)
    if not (case.name.startswith("add_noise") and form == "eager"):
        errors = [
            ((result.double() - exact).abs().max() / exact.abs().max()).item()
            for result, exact in zip(found, case.exact(*inputs), strict=True)
        ]
        assert max(errors) < case.tolerance
        benchmark.extra_info["error"] = f"{max(errors):.1e}"
    benchmark(function, *inputs)
    speed = case.floor_bytes / benchmark.stats.stats.median
    benchmark.extra_info["GB/s"] = round(speed / 1e9, 1)
    benchmark.extra_info["share of copy"] = round(speed / copy_bandwidth, 2)
