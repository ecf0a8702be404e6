"""A model prepared for speed on its device: memory layout, precision, parallel workers."""

import copy
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import Full, Queue
from typing import Generic, TypeVar

import torch

from genselfdiff.errors import InputError, ModelError
from genselfdiff.inference.device import has_fast_bfloat16
from genselfdiff.inference.model_file import LoadedModel, reason_of, with_memory_format

PRECISIONS = ("auto", "float32", "bfloat16")
AGREEMENT = 0.99
"""Share of pixels whose label must be the same in bfloat16 for "auto" to choose it."""
MAX_WORKERS = 8
"""Each worker holds one tile's activations, so their number bounds memory on large machines."""

Item = TypeVar("Item")


class Predictor:
    """Predicts batches of tiles.

    Args:
        model: the model.
        precision: "float32", "bfloat16", or "auto": bfloat16 where the hardware computes it and
            the labels of the first batch agree with float32 on at least 99 % of the pixels.

    Raises:
        InputError: no such precision.
    """

    def __init__(self, model: LoadedModel, precision: str) -> None:
        if precision not in PRECISIONS:
            raise InputError(f"precision {precision!r} must be one of {', '.join(PRECISIONS)}")
        self.model = model
        self._module = with_memory_format(model.module, torch.channels_last)
        self._undecided = precision == "auto" and has_fast_bfloat16(model.device)
        self.precision = "float32"
        if precision == "bfloat16":
            self._use(self._in_bfloat16())

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, 3, h, w) uint8 RGB to (N, C, h, w) float32 probabilities on the CPU.

        The first call settles the precision; it must have returned before others run beside it.

        Raises:
            InputError: the device has too little memory.
            ModelError: the model does not work on these tiles.
        """
        probabilities = self._run(self._module, pixels)
        if self._undecided:
            self._undecided = False
            candidate = self._in_bfloat16()
            same = self._run(candidate, pixels).argmax(1) == probabilities.argmax(1)
            if same.float().mean().item() >= AGREEMENT:
                self._use(candidate)
        return probabilities

    @contextmanager
    def predict_ahead(self, batches: Iterator[torch.Tensor]) -> Iterator[Iterator[torch.Tensor]]:
        """Predict several batches at once; give the results in the order of ``batches``.

        While the block lasts, torch uses few threads in the caller too: the workers need them.
        """
        workers, threads = self._parallelism()
        before = torch.get_num_threads()
        pool = ThreadPoolExecutor(workers, "gsd-model", torch.set_num_threads, (threads,))

        def results() -> Iterator[torch.Tensor]:
            pending: deque[Future[torch.Tensor]] = deque()
            for pixels in batches:
                if self._undecided:
                    yield pool.submit(self, pixels).result()
                    continue
                pending.append(pool.submit(self, pixels))
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()

        torch.set_num_threads(threads)
        try:
            yield results()
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(before)

    def _run(self, module: torch.jit.ScriptModule, pixels: torch.Tensor) -> torch.Tensor:
        try:
            with torch.inference_mode():
                probabilities: torch.Tensor = module(pixels.to(self.model.device)).cpu()
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"{self.model.device} has too little memory for {pixels.shape[0]} tiles of"
                f" {pixels.shape[3]} x {pixels.shape[2]}: use a smaller --batch-size or --tile-size"
            ) from error
        except (RuntimeError, torch.jit.Error) as error:
            raise ModelError(
                f"{self.model.path}: the model failed on tiles of {pixels.shape[3]} x"
                f" {pixels.shape[2]}: {reason_of(error)}"
            ) from error
        if probabilities.shape[1] != len(self.model.info.classes):
            raise ModelError(
                f"{self.model.path}: gives {probabilities.shape[1]} channels, but names"
                f" {len(self.model.info.classes)} classes"
            )
        return probabilities

    def _in_bfloat16(self) -> torch.jit.ScriptModule:
        module: torch.jit.ScriptModule = copy.deepcopy(self._module).to(torch.bfloat16)
        return module

    def _use(self, module: torch.jit.ScriptModule) -> None:
        self._module = module
        self.precision = "bfloat16"

    def _parallelism(self) -> tuple[int, int]:
        """Workers, and threads of each: on a CPU one thread each is fastest."""
        threads = torch.get_num_threads()
        if self.model.device.type != "cpu":
            return 1, threads
        workers = min(threads, MAX_WORKERS)
        return workers, threads // workers


class _Failed(Generic[Item]):
    def __init__(self, error: BaseException) -> None:
        self.error = error


@contextmanager
def read_ahead(produce: Callable[[], Iterator[Item]], depth: int) -> Iterator[Iterator[Item]]:
    """Run the generator in a thread, at most ``depth`` items ahead of who takes them.

    Its exception is raised where the item would have been taken. On leaving the block the thread
    has ended, whether everything was taken or not.
    """
    queue: Queue[Item | _Failed[Item] | None] = Queue(depth)
    stop = threading.Event()

    def put(item: Item | _Failed[Item] | None) -> bool:
        while not stop.is_set():
            try:
                queue.put(item, timeout=0.1)
            except Full:
                continue
            return True
        return False

    def run() -> None:
        try:
            for item in produce():
                if not put(item):
                    return
            put(None)
        except BaseException as error:  # handed over, raised by the taker
            put(_Failed(error))

    def take() -> Iterator[Item]:
        while (item := queue.get()) is not None:
            if isinstance(item, _Failed):
                raise item.error
            yield item

    thread = threading.Thread(target=run, name="gsd-reader", daemon=True)
    thread.start()
    try:
        yield take()
    finally:
        stop.set()
        thread.join()
