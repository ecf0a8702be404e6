"""A model prepared for speed on its devices: memory layout, precision, parallel workers."""

import copy
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import count, islice
from typing import TypeVar

import torch

from genselfdiff.choices import PRECISIONS, VIEWS
from genselfdiff.errors import InputError, ModelError, is_out_of_memory, one_line
from genselfdiff.inference.resample import is_core
from genselfdiff.machine import has_fast_bfloat16, to_device
from genselfdiff.models.model_file import LoadedModel, check_probabilities, load_model
from genselfdiff.models.packing import pack_weights
from genselfdiff.models.segmenter import with_memory_format
from genselfdiff.models.torchscript import steady_inference
from genselfdiff.text import counted

AGREEMENT = 0.97
"""Dice of every class between float32 and bfloat16 from which "auto" chooses bfloat16."""
ENOUGH_PIXELS = 256
"""Of a class in either precision: with fewer, nothing is concluded from it."""
COMPARED_TILES = 16
"""At most so many tiles of a slide are predicted in both precisions before it is begun."""
READERS = 4
"""Threads that read tiles, at most."""
MAX_WORKERS = 8
"""Each worker holds one tile's activations, so their number bounds memory on large machines."""
WORKERS_PER_GPU = 2
"""One copies while the other computes."""
TOLERANCE = 0.1
"""Beyond 0 and 1, of probabilities that a model has enlarged: cubic interpolation overshoots."""
_TURNS = tuple(
    (transposed, flipped) for transposed in (False, True) for flipped in ((), (2, 3), (3,), (2,))
)
"""Of a tile, the eight that map a square onto itself: whether transposed, then which axes flipped.

The first two are the tile and the tile upside down, the first four leave its shape.
"""

Item = TypeVar("Item")
Turn = tuple[bool, tuple[int, ...]]


class Predictor:
    """Predicts batches of tiles.

    Args:
        model: the model.
        precision: "float32", "bfloat16", or "auto": bfloat16 where it is fast and
            ``choose_precision`` finds that the labels agree.
        tta: test-time augmentation: the mean of so many of the eight flips and turns of a tile,
            one of ``VIEWS``; 1: the tile alone.

    Attributes:
        wanted: the precision asked for.
        precision: the one in use.
        tta: as given.
        max_workers: how many predict at once, at most.
        held: of batches of tiles, as (rows, columns, tiles): what was measured of their memory.

    Raises:
        InputError: no such precision, or the model has none but float32; or ``tta`` is none of
            ``VIEWS``.
        ModelError: the model has several devices, and its file cannot be read again.
    """

    def __init__(self, model: LoadedModel, precision: str, tta: int = 1) -> None:
        if precision not in PRECISIONS:
            raise InputError(f"precision {precision!r} must be one of {', '.join(PRECISIONS)}")
        if tta not in VIEWS:
            raise InputError(f"test-time augmentation {tta} must be 1, 2, 4 or 8 views of a tile")
        self.model = model
        self.wanted = precision
        self.precision = "float32"
        self.tta = tta
        self.max_workers = MAX_WORKERS
        self.held: dict[tuple[int, int, int], tuple[int, int]] = {}
        self._threads: int | None = None
        models = [model, *(load_model(model.source, device) for device in model.further)]
        if any(each.digest != model.digest for each in models):
            raise ModelError(f"{model.source}: has changed since it was read: begin again")
        modules = [with_memory_format(each.module, torch.channels_last) for each in models]
        self._devices = [each.device for each in models]
        self._modules = {"float32": modules}
        self._turns = _TURNS[:tta]
        self._worker = threading.local()
        may_choose = precision == "auto" and not model.float32_only
        self._chooses = may_choose and all(map(has_fast_bfloat16, self._devices))
        if self._chooses or precision == "bfloat16":
            self._prepare("bfloat16")
        if precision == "bfloat16":
            self.precision = precision
        else:  # last, so that no packed weights are copied
            self._pack(modules)
        self._settle()

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, 3, h, w) uint8 RGB to (N, C, h, w) float32 probabilities on the CPU.

        C is ``ModelInfo.channels``.

        Raises:
            InputError: there is too little memory.
            ModelError: the model does not work on these tiles.
        """
        return self._run(self.precision, pixels, self._turns)

    def choose_precision(self, tiles: Iterable[torch.Tensor]) -> None:
        """Choose the precision for a slide if it is "auto", by some tiles of that slide alone.

        They are predicted in both precisions, until enough was seen of every class. bfloat16 is
        chosen if each class that was seen agrees, float32 without any foreground. These results
        serve for nothing else, so that a mask is in one precision and depends on its slide only.
        What ``obey`` was told of another slide is forgotten.

        Args:
            tiles: uint8 (N, 3, h, w); at most ``COMPARED_TILES`` make sense.

        Raises:
            InputError, ModelError: as for a call.
        """
        self._threads = None
        self.precision = "float32" if self.wanted == "auto" else self.wanted
        if self._chooses and self._agrees(tiles):
            self.precision = "bfloat16"

    @property
    def threads(self) -> int:
        """Of each worker."""
        return self._parallelism()[1]

    def obey(self, precision: str, threads: int) -> None:
        """Compute as another run did that chose ``precision`` and ``threads`` for this slide."""
        self._prepare(precision)
        self.precision, self._threads = precision, threads

    @contextmanager
    def predict_ahead(self, batches: Iterator[torch.Tensor]) -> Iterator[Iterator[torch.Tensor]]:
        """Predict several batches of a slide at once; give the results in their order.

        While the block lasts, torch uses few threads in the caller too: the workers need them.
        """
        workers, threads = self._parallelism()
        before = torch.get_num_threads()
        numbers = count()

        def begin() -> None:
            torch.set_num_threads(threads)
            self._worker.number = number = next(numbers) % len(self._devices)
            if self._devices[number].type == "cuda":
                stream = torch.cuda.Stream(self._devices[number])  # type: ignore[no-untyped-call]
                self._worker.stream = stream

        pool = ThreadPoolExecutor(workers, "gsd-model", begin)
        torch.set_num_threads(threads)
        patient = True
        try:
            jobs = (partial(self, pixels) for pixels in batches)
            yield _in_order(pool, jobs, 2 * workers + 1)
        except KeyboardInterrupt:
            patient = False  # a tile of a large network takes seconds
            raise
        finally:
            pool.shutdown(wait=patient, cancel_futures=True)
            torch.set_num_threads(before)

    def _run(
        self,
        precision: str,
        pixels: torch.Tensor,
        turns: Sequence[Turn] = _TURNS[:1],
    ) -> torch.Tensor:
        number = getattr(self._worker, "number", 0)
        module = self._modules[precision][number]
        try:
            with steady_inference():
                if self._devices[number].type == "cuda":
                    probabilities = self._on_gpu(module, pixels, turns, self._devices[number])
                else:
                    on_device = pixels.to(self._devices[number])
                    probabilities = _mean_view(module, on_device, turns).cpu()
        except ModelError as error:
            raise ModelError(f"{self.model.source}: {error}") from error
        except (MemoryError, RuntimeError, torch.jit.Error) as error:
            size = f"{pixels.shape[3]} x {pixels.shape[2]}"
            if is_out_of_memory(error):
                raise InputError(
                    f"{self.model.device} has too little memory for"
                    f" {counted(pixels.shape[0], 'tile')} of {size}: use a smaller --batch-size or"
                    " --tile-size"
                ) from error
            raise ModelError(
                f"{self.model.source}: the model failed on tiles of {size}: {one_line(error)}"
            ) from error
        info = self.model.info
        if probabilities.shape[1] != info.channels:
            raise ModelError(
                f"{self.model.source}: gives {counted(probabilities.shape[1], 'channel')}, but"
                f" names {counted(len(info.classes), 'class')}"
                f"{' beside cores' if info.instances else ''}"
            )
        low, high = (extreme.item() for extreme in probabilities.aminmax())
        if not math.isfinite(high - low):
            in_float32 = precision == "float32"
            remedy = "train or export it again" if in_float32 else "use --precision float32"
            raise ModelError(
                f"{self.model.source}: its output in {precision} is not a number: {remedy}"
            )
        if low < -TOLERANCE or high > 1 + TOLERANCE:
            raise ModelError(
                f"{self.model.source}: gives values from {low:g} to {high:g}, not probabilities:"
                " export it with a softmax"
            )
        return probabilities

    def _on_gpu(
        self,
        module: torch.nn.Module,
        pixels: torch.Tensor,
        turns: Sequence[Turn],
        device: torch.device,
    ) -> torch.Tensor:
        """Predict in the stream of this worker, through memory that the GPU copies by itself."""
        stream = getattr(self._worker, "stream", None)
        with torch.cuda.device(device), torch.cuda.stream(stream) if stream else nullcontext():
            on_device = to_device(pixels, device)
            mean = _mean_view(module, on_device, turns)
            fetched = mean.to("cpu", non_blocking=True)  # into page-locked memory
            torch.cuda.current_stream(device).synchronize()
        return fetched

    def _agrees(self, tiles: Iterable[torch.Tensor]) -> bool:
        """Whether bfloat16 gives every class of ``tiles``, and cores, almost as float32 does."""
        info = self.model.info
        sizes = [len(info.classes), 2] if info.instances else [len(info.classes)]
        confusions = [torch.zeros(n, n, dtype=torch.int64) for n in sizes]
        is_nothing = torch.cat([torch.arange(n) == 0 for n in sizes])
        enough = torch.zeros(sum(sizes), dtype=torch.bool)
        for pixels in tiles:
            labels = self._decided(self._run("float32", pixels))
            try:
                others = self._decided(self._run("bfloat16", pixels))
            except ModelError:  # not finite, or an operation that bfloat16 lacks
                return False
            for n, confusion, a, b in zip(sizes, confusions, labels, others, strict=True):
                confusion += torch.bincount((a * n + b).flatten(), minlength=n**2).reshape(n, n)
            in_float32 = torch.cat([confusion.sum(1) for confusion in confusions])
            in_bfloat16 = torch.cat([confusion.sum(0) for confusion in confusions])
            enough = torch.maximum(in_float32, in_bfloat16) >= ENOUGH_PIXELS
            if enough[~is_nothing].all():
                break
        if not enough[~is_nothing].any():
            return False
        same = torch.cat([confusion.diagonal() for confusion in confusions])
        dice = 2 * same / (in_float32 + in_bfloat16)
        return bool((dice[enough] >= AGREEMENT).all())

    def _decided(self, probabilities: torch.Tensor) -> list[torch.Tensor]:
        """The class of each pixel and, of a model that tells them, 1 in the cores of objects."""
        classes = len(self.model.info.classes)
        labels = probabilities[:, :classes].argmax(1)
        if not self.model.info.instances:
            return [labels]
        cores = torch.from_numpy(is_core(probabilities[:, classes].numpy()))
        return [labels, (cores & (labels > 0)).to(torch.int64)]

    def _prepare(self, precision: str) -> None:
        if precision not in self._modules:
            if self.model.float32_only:
                raise InputError(
                    f"{self.model.source}: computes in float32 alone: use --precision auto, or"
                    " export it as model.ts"
                )
            modules = self._modules["float32"]
            copies = [copy.deepcopy(m).to(torch.bfloat16) for m in modules]
            self._pack(copies)
            self._settle()
            self._modules[precision] = copies

    def _settle(self) -> None:
        """Wait for the weights: the workers' streams do not, whatever made them in this thread's.

        Nothing else goes from one stream to another: a worker's stream makes all of a batch, and
        has ended it when the result leaves.
        """
        for device in self._devices:
            if device.type == "cuda":
                torch.cuda.current_stream(device).synchronize()

    def _pack(self, modules: Sequence[torch.nn.Module]) -> None:
        try:
            for module in modules:
                pack_weights(module)
        except (AttributeError, RuntimeError) as error:
            raise ModelError(
                f"{self.model.source}: its convolutions are not those of a model of ours:"
                f" {one_line(error)}"
            ) from error

    def _parallelism(self) -> tuple[int, int]:
        """Workers, and threads of each: on a CPU one thread each is fastest."""
        threads = torch.get_num_threads()
        if self.model.device.type == "cuda":
            return min(WORKERS_PER_GPU * len(self._devices), self.max_workers), threads
        if self.model.device.type != "cpu":
            return 1, threads
        if self._threads is not None:
            return min(max(threads // self._threads, 1), self.max_workers), self._threads
        # Above the bound, the number that leaves the fewest of the processors without work.
        workers = range(1, min(threads, self.max_workers) + 1)
        return max((n * (threads // n), n, threads // n) for n in workers)[1:]


def _mean_view(
    module: torch.nn.Module,
    pixels: torch.Tensor,
    turns: Sequence[Turn],
) -> torch.Tensor:
    """Mean of what ``module`` gives for each of ``turns``, turned back; NCHW in memory too.

    Planes of classes are what is blended: workers and GPUs put them in order faster than the one
    thread that blends.
    """
    views = (_view(module, pixels, turn) for turn in turns)
    total = next(views)
    for view in views:
        total = total + view
    return (total / len(turns)).contiguous() if len(turns) > 1 else total.contiguous()


def _view(module: torch.nn.Module, pixels: torch.Tensor, turn: Turn) -> torch.Tensor:
    transposed, flipped = turn
    seen = pixels.transpose(2, 3) if transposed else pixels
    seen = seen.flip(flipped) if flipped else seen
    seen = seen.contiguous(memory_format=torch.channels_last)
    output = check_probabilities(module(seen), seen)
    output = output.flip(flipped) if flipped else output
    return output.transpose(2, 3) if transposed else output


def _in_order(
    pool: ThreadPoolExecutor, jobs: Iterator[Callable[[], Item]], ahead: int
) -> Iterator[Item]:
    """Do ``jobs`` in a pool, so many ahead of who takes the results; give these in order."""
    pending: deque[Future[Item]] = deque(pool.submit(job) for job in islice(jobs, ahead))
    while pending:
        result = pending.popleft().result()
        pending.extend(pool.submit(job) for job in islice(jobs, 1))
        yield result


@contextmanager
def read_ahead(jobs: Iterator[Callable[[], Item]], depth: int) -> Iterator[Iterator[Item]]:
    """Do ``jobs`` in threads, at most ``depth`` ahead of who takes the results, given in order.

    An exception is raised where the result would have been taken. On leaving the block the
    threads have ended, whether everything was taken or not.
    """
    pool = ThreadPoolExecutor(_readers(), "gsd-reader")
    try:
        yield _in_order(pool, jobs, depth)
    finally:
        pool.shutdown(cancel_futures=True)


def _readers() -> int:
    """One reader keeps four processors busy with the lightest of models."""
    return max(1, min(READERS, torch.get_num_threads() // 4))
