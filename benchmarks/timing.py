"""How long a function takes on a device, and the most that the device can do.

What measures for the GPU day prints one JSON record a line, as soon as it has it (``tell``).
"""

import gc
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

Run = Callable[[], object]

CACHE_BYTES = 1 << 28
"""More than the last cache of any GPU holds: written before each run."""
MOST_ROUNDS = 200


class Timer:
    """Times functions on one device.

    On a GPU by CUDA events around each run, whose inputs no cache holds: the median. On a CPU by
    the process time of all threads: the fastest round.

    Args:
        device: where the functions compute.
        seconds: to spend on one of them, about.
        least: rounds, however long they take.
    """

    def __init__(self, device: torch.device, seconds: float = 0.2, least: int = 3) -> None:
        self.device = device
        self.seconds = seconds
        self.least = least
        on_gpu = device.type == "cuda"
        self._cache = torch.empty(CACHE_BYTES, dtype=torch.uint8, device=device) if on_gpu else None

    def __call__(self, run: Run) -> float:
        """Seconds of one run, after one that is not counted."""
        run()
        synchronise(self.device)
        begin = time.perf_counter()
        run()
        synchronise(self.device)
        rounds = int(self.seconds / (time.perf_counter() - begin))
        rounds = max(self.least, min(rounds, MOST_ROUNDS))
        if self._cache is None:
            return min(_process_seconds(run) for _ in range(rounds))
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(rounds)]
        for first, last in events:
            self._cache.zero_()
            first.record()
            run()
            last.record()
        synchronise(self.device)
        return statistics.median(first.elapsed_time(last) for first, last in events) / 1e3


def _process_seconds(run: Run) -> float:
    begin = time.process_time()
    run()
    return time.process_time() - begin


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def begin_peak(device: torch.device) -> None:
    """Let the GPU's peak memory begin anew, without what nobody holds."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int | None:
    """The most that tensors have held on the GPU since ``begin_peak``; None without one."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


@dataclass(frozen=True)
class Ceilings:
    """What a device was measured to do at the most.

    Attributes:
        bandwidth: of a large copy, bytes read and written a second.
        bfloat16_rate: of a large product of matrices, operations a second.
    """

    bandwidth: float
    bfloat16_rate: float


def ceilings(timer: Timer, copied: int, side: int) -> Ceilings:
    """Measure them, by copying so many bytes and by a product of random matrices of that side."""
    source = torch.randint(256, (copied,), dtype=torch.uint8, device=timer.device)
    copy = timer(partial(torch.empty_like(source).copy_, source))
    a, b = torch.randn(2, side, side, device=timer.device).bfloat16()
    product = timer(partial(torch.mm, a, b, out=torch.empty_like(a)))
    return Ceilings(2 * copied / copy, 2 * side**3 / product)


def tell(**figures: object) -> None:
    """Print a record."""
    print(json.dumps(figures), flush=True)
