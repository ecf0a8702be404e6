"""What a worker of the cluster does, and what it keeps from one part to the next."""

import logging
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

# As the command does, before torch is loaded: see gsd.main.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch
from distributed import get_worker

from genselfdiff.errors import GsdError
from genselfdiff.fleet.machines import Machine
from genselfdiff.fleet.part_queue import Kind, Task
from genselfdiff.inference.predictor import Predictor
from genselfdiff.machine import keep_freed_memory
from genselfdiff.models.model_file import LoadedModel, find_model
from genselfdiff.segmenting.jobs.job import Request, requested
from genselfdiff.segmenting.one_slide import segment_to
from genselfdiff.segmenting.options import Options
from genselfdiff.segmenting.outcome import failure_of
from genselfdiff.segmenting.shards.folder import folder_of, missing_parts
from genselfdiff.segmenting.shards.merge import merge_parts
from genselfdiff.segmenting.shards.part import Piece, agree, is_finished, predict_part
from genselfdiff.segmenting.slide_task import SlideTask
from genselfdiff.storage.places import Place, Url

_KEPT = "genselfdiff_kept"
"""Under this name Dask's object of the worker has what is kept."""


@dataclass(frozen=True)
class Order:
    """What all workers are told of a run; paths are absolute.

    Attributes:
        model: its file, or the name of a shipped one.
        digest: of what is in it.
        options: how to segment.
        folder: that all see: where the masks go, or where the images are.
        elsewhere: the folder that masks are sent to from there; None: they stay.
    """

    model: Path | str
    digest: str
    options: Options
    folder: Path
    elsewhere: Url | None = None

    @classmethod
    def of(
        cls, model: LoadedModel, options: Options, folder: Path, elsewhere: Url | None = None
    ) -> "Order":
        """The order for a model that is loaded here."""
        source = model.source.absolute() if isinstance(model.source, Path) else model.source
        return cls(source, model.digest, options, folder, elsewhere)


@dataclass(frozen=True)
class Report:
    """What a worker has done.

    Attributes:
        result: of a slide that is done, or what a function makes of an item.
        parts: pixels of the parts that are to be done, of a slide that was cut.
        seconds: that it took.
        fixed: of these, to open the slide and lay it out.
        blank: damaged tiles that were taken for glass.
        error: why it was not done.
        told: levels and texts of what was logged.
    """

    result: Any = None
    parts: Mapping[int, int] | None = None
    seconds: float = 0.0
    fixed: float = 0.0
    blank: int = 0
    error: GsdError | None = None
    told: tuple[tuple[int, str], ...] = ()


def greet(order: Order) -> Machine:
    """Load the model, and tell what this worker is."""
    with _ready(order) as kept:
        return Machine.of(
            kept.predictor(order),
            has_folder=order.folder.is_dir(),
            gpus=get_worker().state.total_resources.get("GPU", 0),
        )


def perform(order: Order, task: Task, slide: Place, mask: Path, listed: str | None) -> Report:
    """Do a task; what goes wrong is in the report.

    Args:
        order: what the run is.
        task: what is to be done.
        slide, mask: of which slide.
        listed: see ``Share``.
    """
    return _reported(order, slide, lambda kept: kept.perform(order, task, slide, mask, listed))


def apply(
    order: Order, task: Task, place: Place, function: Callable[[Predictor, Any], Any], item: Any
) -> Report:
    """Have a function make something of an item, with the model; what goes wrong is in the report.

    Args:
        order: what the run is.
        task: all of the item.
        place: where it is, for messages.
        function: that workers can import.
        item: what it is given.
    """
    return _reported(order, place, lambda kept: Report(function(kept.predictor(order), item)))


def _reported(order: Order, slide: Place, work: Callable[["_Kept"], Report]) -> Report:
    begin = time.perf_counter()
    with _ready(order) as kept, listening() as told:
        try:
            report = work(kept)
        except Exception as error:
            failure = failure_of(slide, error)
            failure.add_note("".join(traceback.format_exception(error)))
            failure.__cause__ = None
            report = Report(error=failure)
            kept.close()
    return replace(report, seconds=time.perf_counter() - begin, told=tuple(told))


def forget() -> None:
    """Let go of model and slide, unless another run has this worker by now."""
    kept: _Kept | None = getattr(get_worker(), _KEPT, None)
    if kept is not None and kept.lock.acquire(blocking=False):
        try:
            kept.close()
            delattr(get_worker(), _KEPT)
        finally:
            kept.lock.release()


@dataclass
class _Kept:
    """A model, and a slide that is open."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    _model: tuple[Order, Predictor] | None = None
    _slide: tuple[Place, SlideTask, Request] | None = None
    _stack: ExitStack = field(default_factory=ExitStack)

    def predictor(self, order: Order) -> Predictor:
        """That of the run."""
        if self._model is None or self._model[0] != order:
            self.close()
            self._model = None
            options = order.options
            loaded = find_model(order.model, options.device)
            self._model = order, Predictor(loaded, options.precision, options.tta)
        return self._model[1]

    def perform(
        self, order: Order, task: Task, slide: Place, mask: Path, listed: str | None
    ) -> Report:
        predictor = self.predictor(order)
        if task.kind is Kind.PART:
            begin = time.perf_counter()
            laid_out, request = self._opened(order, slide)
            shared = agree(laid_out, mask, request, (), listed)
            fixed, blank = time.perf_counter() - begin, laid_out.source.blank_tiles
            predict_part(laid_out, mask, shared, task.part)
            return Report(fixed=fixed, blank=laid_out.source.blank_tiles - blank)
        if task.kind is Kind.CUT:
            begin = time.perf_counter()
            laid_out, request = self._opened(order, slide)
            if is_finished(order.elsewhere, mask, request, predictor, order.options):
                return Report(parts={})
            bounds = pairwise((0.0, *task.cuts, 1.0))
            pieces = [Piece(number, *ends) for number, ends in enumerate(bounds, start=1)]
            shared = agree(laid_out, mask, request, pieces, listed)
            missing = missing_parts(folder_of(mask), shared, order.options)
            width = laid_out.layout.window[2]
            parts = {i: (end - first) * width for i in missing for first, end in [shared.parts[i]]}
            return Report(parts=parts, fixed=time.perf_counter() - begin)
        self.close()
        if task.kind is Kind.MERGE and folder_of(mask).is_dir():
            merged = merge_parts(mask, order.elsewhere)
            return Report(result=replace(merged, finished_before=False))
        # Where a worker died after it had merged, the mask is there, and what lies beside it.
        result = segment_to(
            order.elsewhere, slide, mask, predictor, order.options, overwrite=False, progress=False
        )
        return Report(result=result)

    def close(self) -> None:
        """Close the slide."""
        self._slide = None
        self._stack.close()

    def _opened(self, order: Order, slide: Place) -> tuple[SlideTask, Request]:
        if self._slide is None or self._slide[0] != slide:
            self.close()
            predictor, options = self.predictor(order), order.options
            request = requested(slide, predictor, options)
            source = self._stack.enter_context(options.opened(slide))
            self._slide = slide, SlideTask.of(source, predictor, options), request
        return self._slide[1], self._slide[2]


@contextmanager
def _ready(order: Order) -> Iterator[_Kept]:
    """What this worker keeps, alone; torch has the threads that Dask says are the worker's."""
    worker = get_worker()
    kept: _Kept | None = getattr(worker, _KEPT, None)
    if kept is None:
        if order.options.max_memory is None:
            keep_freed_memory()
        kept = _Kept()
        setattr(worker, _KEPT, kept)
    torch.set_num_threads(worker.state.nthreads)
    with kept.lock:
        yield kept


@contextmanager
def listening() -> Iterator[list[tuple[int, str]]]:
    """What this thread logs, for whoever waits for the slide."""
    told: list[tuple[int, str]] = []
    thread = threading.get_ident()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread:
                told.append((record.levelno, record.getMessage()))

    logger, handler = logging.getLogger("genselfdiff"), Handler(logging.INFO)
    logger.addHandler(handler)
    try:
        yield told
    finally:
        logger.removeHandler(handler)
