"""A model prepared for speed on its device: memory layout, precision, parallel workers."""

import copy
import math
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
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
"""At most so many tiles of a slide are predicted in both precisions before it is begun."""
_NO_MEMORY = re.compile(r"out of memory|(can't|cannot) allocate memory|not enough memory", re.I)
"""What torch says of it; TorchScript makes plain RuntimeErrors of all errors."""
MAX_WORKERS = 8
"""Each worker holds one tile's activations, so their number bounds memory on large machines."""

Item = TypeVar("Item")


class Predictor:
    """Predicts batches of tiles.

    Args:
        model: the model.
        precision: "float32", "bfloat16", or "auto": bfloat16 where the hardware computes it and
            ``choose_precision`` finds that the labels agree.

    Attributes:
        wanted: the precision asked for.
        precision: the one in use.

    Raises:
        InputError: no such precision.
    """

    def __init__(self, model: LoadedModel, precision: str) -> None:
        if precision not in PRECISIONS:
            raise InputError(f"precision {precision!r} must be one of {', '.join(PRECISIONS)}")
        self.model = model
        self.wanted = precision
        self.precision = "float32"
        self._threads: int | None = None
        module = with_memory_format(model.module, torch.channels_last)
        self._modules = {"float32": module}
        self._chooses = precision == "auto" and has_fast_bfloat16(model.device)
        if self._chooses or precision == "bfloat16":
            self._prepare("bfloat16")
        if precision == "bfloat16":
            self.precision = precision

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, 3, h, w) uint8 RGB to (N, C, h, w) float32 probabilities on the CPU.

        Raises:
            InputError: there is too little memory.
            ModelError: the model does not work on these tiles.
        """
        return self._run(self.precision, pixels)

    def choose_precision(self, tiles: Iterable[torch.Tensor]) -> None:
        """Choose the precision for a slide if it is "auto", by some tiles of that slide alone.

        They are predicted in both precisions, until enough was seen of every class. bfloat16 is
        chosen if each class that was seen agrees, float32 without any foreground. These results
        serve for nothing else, so that a mask is in one precision and depends on its slide only.

        Args:
            tiles: uint8 (N, 3, h, w); at most ``COMPARED_TILES`` make sense.

        Raises:
            InputError, ModelError: as for a call.
        """
        if self._chooses:
            self.precision = "float32"
            if self._agrees(tiles):
                self.precision = "bfloat16"

    @property
    def threads(self) -> int:
        """Of each worker."""
        return self._parallelism()[1]

    def obey(self, precision: str, threads: int) -> None:
        """Compute as another run did that chose ``precision`` and ``threads`` a worker."""
        self._prepare(precision)
        self.precision, self._threads = precision, threads

    @contextmanager
    def predict_ahead(self, batches: Iterator[torch.Tensor]) -> Iterator[Iterator[torch.Tensor]]:
        """Predict several batches of a slide at once; give the results in their order.

        While the block lasts, torch uses few threads in the caller too: the workers need them.
        """
        workers, threads = self._parallelism()
        before = torch.get_num_threads()
        pool = ThreadPoolExecutor(workers, "gsd-model", torch.set_num_threads, (threads,))

        def results() -> Iterator[torch.Tensor]:
            pending: deque[Future[torch.Tensor]] = deque()
            for pixels in batches:
                pending.append(pool.submit(self, pixels))
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()

        torch.set_num_threads(threads)
        patient = True
        try:
            yield results()
        except KeyboardInterrupt:
            patient = False  # a tile of a large network takes seconds
            raise
        finally:
            pool.shutdown(wait=patient, cancel_futures=True)
            torch.set_num_threads(before)

    def _run(self, precision: str, pixels: torch.Tensor) -> torch.Tensor:
        module = self._modules[precision]
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
            in_float32 = precision == "float32"
            remedy = "train or export it again" if in_float32 else "use --precision float32"
            raise ModelError(
                f"{self.model.path}: its output in {precision} is not a number: {remedy}"
            )
        return probabilities

    def _agrees(self, tiles: Iterable[torch.Tensor]) -> bool:
        """Whether bfloat16 gives every class of ``tiles`` almost as float32 does."""
        classes = len(self.model.info.classes)
        confusion = torch.zeros(classes, classes, dtype=torch.int64)
        enough = torch.zeros(classes, dtype=torch.bool)
        for pixels in tiles:
            labels = self._run("float32", pixels).argmax(1)
            try:
                others = self._run("bfloat16", pixels).argmax(1)
            except ModelError:  # not finite, or an operation that bfloat16 lacks
                return False
            pairs = torch.bincount((labels * classes + others).flatten(), minlength=classes**2)
            confusion += pairs.reshape(classes, classes)
            here, there = confusion.sum(1), confusion.sum(0)
            enough = torch.maximum(here, there) >= ENOUGH_PIXELS
            if enough[1:].all():
                break
        if not enough[1:].any():
            return False
        dice = 2 * confusion.diagonal() / (here + there)
        return bool((dice[enough] >= AGREEMENT).all())

    def _prepare(self, precision: str) -> None:
        if precision not in self._modules:
            self._modules[precision] = copy.deepcopy(self._modules["float32"]).to(torch.bfloat16)

    def _parallelism(self) -> tuple[int, int]:
        """Workers, and threads of each: on a CPU one thread each is fastest."""
        threads = torch.get_num_threads()
        if self.model.device.type != "cpu":
            return 1, threads
        if self._threads is not None:
            return min(max(threads // self._threads, 1), MAX_WORKERS), self._threads
        # Above the bound, the number that leaves the fewest of the processors without work.
        workers = range(1, min(threads, MAX_WORKERS) + 1)
        return max((n * (threads // n), n, threads // n) for n in workers)[1:]


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
