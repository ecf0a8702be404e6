"""How long a function takes on a device, and the most that the device can do.

What measures for the GPU day prints one JSON record a line, as soon as it has it (``tell``).
"""

import gc
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

Run = Callable[[], object]

CACHE_BYTES = 1 << 28
"""More than the last cache of any GPU holds: written before each run."""
AHEAD = 2_000_000
"""Cycles that a GPU is kept busy before each run, a millisecond: it waits for no launch of it."""
MOST_ROUNDS = 200


def clock(device: torch.device) -> Callable[[], Any]:
    """What tells the time on a device: of two that it tells, the difference is seconds.

    On a CPU the process time of all threads. On a GPU CUDA events, without waiting.
    """
    return _Event if device.type == "cuda" else time.process_time


class _Event:
    def __init__(self) -> None:
        self._event = torch.cuda.Event(enable_timing=True)
        self._event.record()

    def __sub__(self, begin: "_Event") -> float:
        self._event.synchronize()
        return begin._event.elapsed_time(self._event) / 1e3


class Timer:
    """Times functions on one device, by its `clock`.

    On a GPU no cache holds the inputs: the median. On a CPU the fastest round.

    Args:
        device: where the functions compute.
        seconds: to spend on one of them, about.
        least: rounds, however long they take.
    """

    def __init__(self, device: torch.device, seconds: float = 0.2, least: int = 3) -> None:
        self.device = device
        self.seconds = seconds
        self.least = least
        self._clock = clock(device)
        on_gpu = device.type == "cuda"
        self._cache = torch.empty(CACHE_BYTES, dtype=torch.uint8, device=device) if on_gpu else None

    def __call__(self, run: Run) -> float:
        """Seconds of one run, after some that are not counted."""
        return self.of_rounds([self._round(run) for _ in range(self.rounds(run))])

    def rounds(self, run: Run) -> int:
        """How many there is time for, by the second run."""
        run()
        synchronise(self.device)
        begin = time.perf_counter()
        run()
        synchronise(self.device)
        rounds = int(self.seconds / (time.perf_counter() - begin))
        return max(self.least, min(rounds, MOST_ROUNDS))

    def prepare(self) -> None:
        """To be called before each round."""
        if self._cache is not None:
            self._cache.zero_()
            torch.cuda._sleep(AHEAD)

    def of_rounds(self, seconds: Sequence[float]) -> float:
        """What counts of the seconds of all rounds."""
        return min(seconds) if self._cache is None else statistics.median(seconds)

    def _round(self, run: Run) -> float:
        self.prepare()
        begin = self._clock()
        run()
        taken: float = self._clock() - begin
        return taken


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
    """Print a record, on a line of its own whatever a test runner has begun one with."""
    print("\n" + json.dumps(figures), flush=True)
