"""What ``map`` does, done by the workers of a cluster."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from distributed import KilledWorker, get_worker

from genselfdiff.errors import GsdError
from genselfdiff.fleet.coordinator import Coordinator
from genselfdiff.fleet.part_queue import PartQueue, Size
from genselfdiff.fleet.worker import Order, apply, listening
from genselfdiff.inference.predictor import Predictor
from genselfdiff.models.model_file import LoadedModel
from genselfdiff.progress import progress_bar
from genselfdiff.segmenting.options import Options
from genselfdiff.storage.places import Place
from genselfdiff.version import __version__

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger("genselfdiff")

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_on(
    client: "Client",
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    progress: bool | None = None,
) -> Iterator[Result]:
    """Results in their order, of workers that take the next item as they come free.

    What a worker was at that has died another does, three times at most.

    Args:
        client: of the cluster.
        function: that workers can import, or a ``partial`` of one.
        items: its arguments; paths are absolute.
        progress: see ``progress_bar``.

    Raises:
        GsdError: workers have died, one has another version, or the scheduler is gone.
        Exception: what ``function`` raises.
    """
    work = partial(_done_and_told, __version__, function)
    futures = client.map(work, list(items), pure=False)
    try:
        for future in progress_bar(futures, progress=progress):
            try:
                result, told = future.result()
                for level, text in told:
                    logger.log(level, "%s", text)
                yield result
                future.release()  # so that workers forget it
            except (KilledWorker, CancelledError, OSError) as error:
                if isinstance(error, GsdError):
                    raise
                raise GsdError(
                    "workers have died, or the scheduler is gone: what is finished is kept, and the"
                    " same command goes on"
                ) from error
    finally:
        client.cancel(futures)


def _done_and_told(
    version: str, function: Callable[[Item], Result], item: Item
) -> tuple[Result, list[tuple[int, str]]]:
    """On a worker: what a function makes of an item, and what it has logged."""
    if __version__ != version:
        raise GsdError(
            f"{get_worker().address}: has genselfdiff {__version__} instead of {version}: install"
            " that there"
        )
    with listening() as told:
        return function(item), told


def predict_on(
    client: "Client",
    model: LoadedModel,
    function: Callable[[Predictor, Item], Result],
    items: Sequence[tuple[Place, Item]],
    *,
    folder: Path,
    device: str | None,
    precision: str,
    unit: str = "it",
    progress: bool | None = None,
) -> Iterator[Result]:
    """Results in their order, of workers that have loaded a model: each does an item at a time.

    Workers are looked at first, come and go and fail as those that segment slides.

    Args:
        client: of the cluster.
        model: as it is here, on any device.
        function: that workers can import, or a ``partial`` of one.
        items: where each is, for messages, and what the function takes; paths are absolute.
        folder: that workers have to see.
        device, precision: see ``Options``.
        unit: what the bar calls an item.
        progress: see ``progress_bar``.

    Raises:
        GsdError: what the function raises, no worker fits, or the scheduler is gone.
    """
    # The first of the list come first, as the largest of slides do.
    sizes = [Size(left, 0) for left in range(len(items), 0, -1)]
    queue = PartQueue(sizes, whole=range(len(items)))
    told = [(place, function, item) for place, item in items]
    order = Order.of(model, Options(device=device, precision=precision), folder)
    coordinator = Coordinator(client, order, queue, apply, told)
    waiting: dict[int, Result] = {}
    due = 0
    with progress_bar(total=len(items), unit=unit, progress=progress) as bar:
        for task, report, _ in coordinator.reports():
            if report.error is not None:
                raise report.error
            bar.update()
            waiting[task.slide] = report.result
            while due in waiting:
                yield waiting.pop(due)
                due += 1
