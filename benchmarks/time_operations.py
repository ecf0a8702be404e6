"""Times of the operations in ``operations.py``, in every form.

    python benchmarks/time_operations.py [--device cpu] > OPERATIONS.jsonl

On a CPU those of one thread; ``make bench`` makes a table of them. On a GPU with --batches: every
operation at each of these, bfloat16 first, and forms by torch.compile, which take seconds each, at
the end. The numbers of a form are checked against float64: no time counts where they are wrong.
Prints a JSON record a line: what a copy takes, then each form, on a GPU with the seconds that its
bytes and matrix products would take at the least, at the speeds of a large copy and product.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from functools import lru_cache

import torch
from forms import Arguments, Tensors, error, is_right
from operations import Case, cases
from timing import Timer, ceilings, tell

from genselfdiff.machine import keep_freed_memory

COPIED = 1 << 28
LARGEST_TRUTH = 1 << 26
"""Elements of a tensor up to which float64 is computed as well: it takes many times the memory."""


@lru_cache(maxsize=1)
def arguments_and_truth(case: Case) -> tuple[Arguments, Callable[[Tensors], Tensors] | None]:
    """Shared by the forms of a case, which follow one another."""
    arguments = case.arguments()
    checked = next(iter(arguments.values())).numel() <= LARGEST_TRUTH
    return arguments, case.truth(arguments) if checked else None


def chosen(options: argparse.Namespace) -> Iterator[tuple[Case, str]]:
    """Cases and forms in the order of their worth."""
    found = list(cases(options.tile, torch.device(options.device), options.batches))
    if options.batches:
        worth = {batch: place for place, batch in enumerate(options.batches)}
        found.sort(key=lambda case: (worth[case.size[0]], case.dtype == torch.float32))
    for last in (False, True):
        for case in found:
            for form in case.forms:
                wanted = options.forms is None or {form, form.split(",")[0]} & {*options.forms}
                if wanted and (form == "compile") == last:
                    yield case, form


def measure(case: Case, form: str, timer: Timer) -> dict[str, object]:
    """Seconds of one form, and whether its numbers are right."""
    arguments, truth = arguments_and_truth(case)
    run = case.forms[form](arguments)
    found = run()
    off = None if truth is None else error(found, truth(found))
    del found
    right = off is None or is_right(off, case.dtype)
    return {"seconds": timer(run), "error": off, "right": right}


def main() -> None:
    """Measure as much as there is time for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--batches", type=int, nargs="+")
    parser.add_argument(
        "--forms", nargs="+", help="such as authors, or one of theirs; default: all"
    )
    parser.add_argument("--round", type=float, default=0.2, help="seconds for each form")
    parser.add_argument("--seconds", type=float, help="after which no form is begun")
    options = parser.parse_args()
    begin = time.monotonic()
    keep_freed_memory()
    torch.set_num_threads(1)
    device = torch.device(options.device)
    timer = Timer(device, options.round)
    most = ceilings(timer, COPIED, 8192 if device.type == "cuda" else 512)
    tell(operation="copy", seconds=2 * COPIED / most.bandwidth, floor_bytes=2 * COPIED)
    for case, form in chosen(options):
        if options.seconds and time.monotonic() - begin > options.seconds:
            break
        try:
            figures = measure(case, form, timer)
        except Exception as problem:  # the others are worth as much as before
            figures = {"seconds": 0.0, "error": None, "right": False, "failed": str(problem)[:300]}
        tell(
            operation=case.operation,
            size=" x ".join(map(str, case.size)),
            dtype=str(case.dtype).removeprefix("torch."),
            form=form,
            floor_bytes=case.floor_bytes,
            # What is told of products is told of a GPU's.
            predicted=case.predicted_seconds(most) if options.device != "cpu" else None,
            **figures,
        )


if __name__ == "__main__":
    main()
