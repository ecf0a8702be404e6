"""What ``map`` does, done by the workers of a cluster."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, TypeVar

from distributed import KilledWorker

from genselfdiff.errors import GsdError
from genselfdiff.progress import progress_bar

if TYPE_CHECKING:
    from distributed import Client

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
        GsdError: workers have died, or the scheduler is gone.
        Exception: what ``function`` raises.
    """
    futures = client.map(function, list(items), pure=False)
    try:
        for future in progress_bar(futures, progress=progress):
            try:
                yield future.result()
            except (KilledWorker, CancelledError, OSError) as error:
                if isinstance(error, GsdError):
                    raise
                raise GsdError(
                    "workers have died, or the scheduler is gone: what is finished is kept, and the"
                    " same command goes on"
                ) from error
    finally:
        client.cancel(futures)
