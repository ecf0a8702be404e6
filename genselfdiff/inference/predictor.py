"""A model prepared for speed on its device: memory layout, precision, parallel workers."""

import copy
import math
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import Full, Queue
from typing import Generic, TypeVar

import torch

from genselfdiff.errors import InputError, ModelError, one_line
from genselfdiff.inference.device import has_fast_bfloat16
from genselfdiff.inference.model_file import LoadedModel, with_memory_format

PRECISIONS = ("auto", "float32", "bfloat16")
AGREEMENT = 0.97
"""Dice of every class between float32 and bfloat16 from which "auto" chooses bfloat16."""
ENOUGH_PIXELS = 256
"""Of a class in either precision: with fewer, nothing is concluded from it."""
COMPARED_TILES = 16
"""At most so many tiles of a slide are predicted twice, in both precisions."""
_NO_MEMORY = re.compile(r"out of memory|(can't|cannot) allocate memory|not enough memory", re.I)
"""What torch says of it; TorchScript makes plain RuntimeErrors of all errors."""
MAX_WORKERS = 8
"""Each worker holds one tile's activations, so their number bounds memory on large machines."""

Item = TypeVar("Item")


class Predictor:
    """Predicts batches of tiles.

    "auto" predicts the first tiles in float32 and beside it in bfloat16, until enough of every
    class was seen or ``COMPARED_TILES`` have passed. bfloat16 is then used for good if each class
    that was seen agrees; without any foreground the slide stays in float32, and the next decides.

    Args:
        model: the model.
        precision: "float32", "bfloat16", or "auto": bfloat16 where the hardware computes it and
            the labels agree.

    Raises:
        InputError: no such precision.
    """

    def __init__(self, model: LoadedModel, precision: str) -> None:
        if precision not in PRECISIONS:
            raise InputError(f"precision {precision!r} must be one of {', '.join(PRECISIONS)}")
        self.model = model
        self._module = with_memory_format(model.module, torch.channels_last)
        self.precision = "float32"
        self._undecided = precision == "auto" and has_fast_bfloat16(model.device)
        self._compared = 0
        classes = len(model.info.classes)
        self._confusion = torch.zeros(classes, classes, dtype=torch.int64)
        if self._undecided or precision == "bfloat16":
            self._candidate = self._in_bfloat16()
        if precision == "bfloat16":
            self._decide(True)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, 3, h, w) uint8 RGB to (N, C, h, w) float32 probabilities on the CPU.

        While precisions are compared, one call must have returned before the next.

        Raises:
            InputError: there is too little memory.
            ModelError: the model does not work on these tiles.
        """
        probabilities = self._run(self._module, pixels)
        if self._comparing:
            self._compare(pixels, probabilities.argmax(1))
        return probabilities

    @contextmanager
    def predict_ahead(self, batches: Iterator[torch.Tensor]) -> Iterator[Iterator[torch.Tensor]]:
        """Predict several batches of a slide at once; give the results in their order.

        While the block lasts, torch uses few threads in the caller too: the workers need them.
        """
        self._compared = 0
        workers, threads = self._parallelism()
        before = torch.get_num_threads()
        pool = ThreadPoolExecutor(workers, "gsd-model", torch.set_num_threads, (threads,))

        def results() -> Iterator[torch.Tensor]:
            pending: deque[Future[torch.Tensor]] = deque()
            for pixels in batches:
                if self._comparing:
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
        except (MemoryError, RuntimeError, torch.jit.Error) as error:
            size = f"{pixels.shape[3]} x {pixels.shape[2]}"
            if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
                raise InputError(
                    f"{self.model.device} has too little memory for {pixels.shape[0]} tiles of"
                    f" {size}: use a smaller --batch-size or --tile-size"
                ) from error
            raise ModelError(
                f"{self.model.path}: the model failed on tiles of {size}: {one_line(error)}"
            ) from error
        if probabilities.shape[1] != len(self.model.info.classes):
            raise ModelError(
                f"{self.model.path}: gives {probabilities.shape[1]} channels, but names"
                f" {len(self.model.info.classes)} classes"
            )
        if not math.isfinite(probabilities.sum().item()):
            in_float32 = self.precision == "float32"
            remedy = "train or export it again" if in_float32 else "use --precision float32"
            raise ModelError(
                f"{self.model.path}: its output in {self.precision} is not a number: {remedy}"
            )
        return probabilities

    @property
    def _comparing(self) -> bool:
        return self._undecided and self._compared < COMPARED_TILES

    def _compare(self, pixels: torch.Tensor, labels: torch.Tensor) -> None:
        """Predict a batch in bfloat16 too; decide, if that is enough beside the float32 labels."""
        self._compared += len(pixels)
        try:
            others = self._run(self._candidate, pixels).argmax(1)
        except ModelError:  # not finite, or an operation that bfloat16 lacks
            self._decide(False)
            return
        classes = len(self._confusion)
        pairs = torch.bincount((labels * classes + others).flatten(), minlength=classes**2)
        self._confusion += pairs.reshape(classes, classes)
        here, there = self._confusion.sum(1), self._confusion.sum(0)
        enough = torch.maximum(here, there) >= ENOUGH_PIXELS
        if enough[1:].all() or (enough[1:].any() and not self._comparing):
            dice = 2 * self._confusion.diagonal() / (here + there)
            self._decide(bool((dice[enough] >= AGREEMENT).all()))

    def _decide(self, for_bfloat16: bool) -> None:
        self._undecided = False
        if for_bfloat16:
            self._module, self.precision = self._candidate, "bfloat16"
        del self._candidate

    def _in_bfloat16(self) -> torch.jit.ScriptModule:
        module: torch.jit.ScriptModule = copy.deepcopy(self._module).to(torch.bfloat16)
        return module

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
