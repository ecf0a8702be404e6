"""Times of the operations in ``operations.py``, in every form, by pytest-benchmark.

    pytest -s benchmarks/test_operations.py [--device cpu] > OPERATIONS.jsonl

On a CPU those of one thread; ``make bench`` makes a table of them. On a GPU with --batches: every
operation at each of these, bfloat16 first, and forms by torch.compile, which take seconds each, at
the end. The numbers of a form are checked against float64: no time counts where they are wrong.
Prints a JSON record a line: what a copy takes, then each form, on a GPU with the seconds that its
bytes and matrix products would take at the least, at the speeds of a large copy and product.
"""

import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import pytest
import torch
from forms import Arguments, Tensors, error, is_right
from operations import Case, cases
from pytest_benchmark.fixture import BenchmarkFixture
from timing import Ceilings, Timer, ceilings, tell

from genselfdiff.machine import keep_freed_memory

COPIED = 1 << 28
LARGEST_TRUTH = 1 << 26
"""Elements of a tensor up to which float64 is computed as well: it takes many times the memory."""
BEGIN = time.monotonic()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        metafunc.parametrize(
            ("case", "form"),
            [
                pytest.param(case, form, id=f"{case.name}: {form}")
                for case, form in chosen(metafunc.config)
            ],
        )


def chosen(config: pytest.Config) -> Iterator[tuple[Case, str]]:
    """Cases and forms in the order of their worth."""
    batches, forms = config.getoption("batches"), config.getoption("forms")
    device = torch.device(config.getoption("device"))
    found = list(cases(config.getoption("tile"), device, batches))
    if batches:
        worth = {batch: place for place, batch in enumerate(batches)}
        found.sort(key=lambda case: (worth[case.size[0]], case.dtype == torch.float32))
    for last in (False, True):
        for case in found:
            for form in case.forms:
                wanted = forms is None or {form, form.split(",")[0]} & {*forms}
                if wanted and (form == "compile") == last:
                    yield case, form


@pytest.fixture(scope="module")
def timer(pytestconfig: pytest.Config) -> Timer:
    """Measures as training computes, on one thread."""
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False  # float32 beside float32
    device = torch.device(pytestconfig.getoption("device"))
    return Timer(device, pytestconfig.getoption("round"))


@pytest.fixture(scope="module")
def most(timer: Timer) -> Ceilings:
    """What the device can do."""
    return ceilings(timer, COPIED, 8192 if timer.device.type == "cuda" else 512)


@lru_cache(maxsize=1)
def arguments_and_truth(case: Case) -> tuple[Arguments, Callable[[Tensors], Tensors] | None]:
    """Shared by the forms of a case, which follow one another."""
    arguments = case.arguments()
    checked = next(iter(arguments.values())).numel() <= LARGEST_TRUTH
    return arguments, case.truth(arguments) if checked else None


def seconds_of(run: Callable[[], object], benchmark: BenchmarkFixture, timer: Timer) -> float:
    """Of one run."""
    rounds = timer.rounds(run)
    benchmark.pedantic(run, setup=timer.prepare, rounds=rounds)
    return timer.of_rounds(benchmark.stats.stats.data)


def test_copy(benchmark: BenchmarkFixture, timer: Timer, most: Ceilings) -> None:
    """Its bandwidth is what the table compares with."""
    source = torch.randint(256, (COPIED,), dtype=torch.uint8, device=timer.device)
    seconds = seconds_of(partial(torch.empty_like(source).copy_, source), benchmark, timer)
    tell(operation="copy", seconds=seconds, floor_bytes=2 * COPIED)


def test_operation(
    benchmark: BenchmarkFixture,
    timer: Timer,
    most: Ceilings,
    case: Case,
    form: str,
    pytestconfig: pytest.Config,
) -> None:
    until = pytestconfig.getoption("seconds")
    if until and time.monotonic() - BEGIN > until:
        pytest.skip("no time is left")
    record = {
        "operation": case.operation,
        "size": " x ".join(map(str, case.size)),
        "dtype": str(case.dtype).removeprefix("torch."),
        "form": form,
        "floor_bytes": case.floor_bytes,
        # What is told of products is told of a GPU's.
        "predicted": case.predicted_seconds(most) if timer.device.type != "cpu" else None,
    }
    try:
        arguments, truth = arguments_and_truth(case)
        run = case.forms[form](arguments)
        found = run()
        off = None if truth is None else error(found, truth(found))
        del found
        seconds = seconds_of(run, benchmark, timer)
    except Exception as problem:
        failed = str(problem)[:300]
        tell(**record, seconds=0.0, error=None, right=False, failed=failed)
        raise
    tell(**record, seconds=seconds, error=off, right=off is None or is_right(off, case.dtype))
