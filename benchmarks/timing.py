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
    """What a device was measured to do at most.

    Attributes:
        copy: bytes a second, read and written ones.
        products: by dtype, floating-point operations a second of a large matrix product. float32 is
            that of torch as it comes, without tf32.
    """

    copy: float
    products: dict[torch.dtype, float]

    def seconds(self, floor_bytes: int, flops: int, dtype: torch.dtype) -> float:
        """The least that an operation takes which moves and computes so much."""
        rate = self.products.get(dtype, self.products[torch.float32])
        return max(floor_bytes / self.copy, flops / rate)


def ceilings(timer: Timer, copied: int = 1 << 30, side: int = 8192) -> Ceilings:
    """Measure them: a copy of ``copied`` bytes, products of ``side`` x ``side`` random numbers."""
    device = timer.device
    source = torch.randint(256, (copied,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = 2 * copied / timer(partial(target.copy_, source))
    del source, target
    products = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.randn(2, side, side, device=device).to(dtype)
        out = torch.empty_like(a)
        products[dtype] = 2 * side**3 / timer(partial(torch.mm, a, b, out=out))
    return Ceilings(copy, products)


def tell(**figures: object) -> None:
    """Print a record."""
    print(json.dumps(figures), flush=True)
