"""Times of the operations in ``operations.py`` on one thread; ``make bench`` prints the table.

Each form's numbers are checked too: the table shows no speed where they are wrong.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache

import pytest
import torch
from forms import Arguments, Tensors, error, is_right
from operations import Case, cases
from pytest_benchmark.fixture import BenchmarkFixture

from genselfdiff.kernels import native
from genselfdiff.machine import keep_freed_memory

pytestmark = [
    pytest.mark.benchmark(max_time=0.2, min_rounds=3),
    pytest.mark.skipif(not native.available(), reason="no native kernels installed"),
]


@pytest.fixture(autouse=True, scope="module")
def as_training_does() -> Iterator[None]:
    keep_freed_memory()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@lru_cache(maxsize=1)
def arguments_and_truth(case: Case) -> tuple[Arguments, Callable[[Tensors], Tensors]]:
    """Shared by the forms of a case, which follow one another."""
    arguments = case.arguments()
    return arguments, case.truth(arguments)


@pytest.mark.parametrize(
    ("case", "form"),
    [
        pytest.param(case, form, id=f"{case.name}: {form}")
        for case in cases()
        for form in case.forms
    ],
)
def test_operation(benchmark: BenchmarkFixture, case: Case, form: str) -> None:
    arguments, truth = arguments_and_truth(case)
    run = case.forms[form](arguments)
    found = run()
    found_error = error(found, truth(found))
    benchmark.group = case.name
    benchmark.extra_info |= {
        "operation": case.operation,
        "size": " x ".join(map(str, case.size)),
        "dtype": str(case.dtype).removeprefix("torch."),
        "form": form,
        "error": found_error,
        "right": is_right(found_error, case.dtype),
        "floor_bytes": case.floor_bytes,
    }
    benchmark(run)


def test_copy(benchmark: BenchmarkFixture) -> None:
    """Of 256 MiB: the bandwidth that the table compares with."""
    source = torch.randn(1 << 26)
    target = torch.empty_like(source)
    benchmark.extra_info |= {"operation": "copy", "floor_bytes": 2 * source.nbytes}
    benchmark(target.copy_, source)
