"""Tasks to the workers of a Dask cluster and their reports back, whatever becomes of either."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from threading import Timer
from typing import TYPE_CHECKING, Any

from distributed import fire_and_forget

from genselfdiff.errors import GsdError, InUseError, one_line
from genselfdiff.fleet.machines import Machine, differences_of, refusal_of
from genselfdiff.fleet.part_queue import PartQueue, Task
from genselfdiff.fleet.worker import Order, Report, forget, greet

if TYPE_CHECKING:
    from distributed import Client, Future

logger = logging.getLogger("genselfdiff")

LOOK_SECONDS = 1.0
"""Between two looks at which workers there are."""

GREETING_SECONDS = 30.0
"""So long is waited at first for workers that are there and do not answer."""

FETCH_SECONDS = 30.0
"""So long a report may take that a worker has made: then the worker is gone."""

IN_USE_SECONDS = 10.0
"""So long is waited where a file is written by a worker that was thought to be gone."""


Done = tuple[Task, Report, bool]
"""What was done, what is told of it, and whether its slide is done or given up with it."""


class Coordinator:
    """Gives out the tasks of a queue, one at a time to each worker.

    Args:
        client: of the cluster.
        order: what workers are told of the run.
        queue: the tasks.
        perform: what workers do of a task. It takes the order, the task and what is told of its
            slide.
        told: that of each slide, first where it is.
        recorded: how far that has come which a task makes: it grows while a worker is at it. None:
            nothing can be seen of that.
    """

    def __init__(
        self,
        client: "Client",
        order: Order,
        queue: PartQueue,
        perform: Callable[..., Report],
        told: Sequence[tuple[Any, ...]],
        recorded: Callable[[Task], int] | None = None,
    ) -> None:
        self._client, self._order, self._queue = client, order, queue
        self._perform, self._told = perform, told
        self._recorded = recorded or (lambda task: 0)
        self._events: SimpleQueue[Callable[[], Iterator[Done]]] = SimpleQueue()
        self._present: set[str] = set()
        self._machines: dict[str, Machine] = {}
        self._answers: dict[str, object] | None = {}
        self._refusal = ""
        self._futures: dict[str, Future] = {}
        self._tasks: dict[str, _Given] = {}
        self._next_look = 0.0
        self._is_waiting = False
        self._latest_begin = time.monotonic() + GREETING_SECONDS

    @property
    def workers(self) -> int:
        """How many work."""
        return len(self._machines)

    def reports(self) -> Iterator[Done]:
        """Tasks as they are done, or as they end their slide.

        Raises:
            GsdError: no worker fits, or the scheduler is gone.
        """
        logger.info("dashboard: %s", self._client.dashboard_link)
        try:
            while self._queue.left:
                if time.monotonic() >= self._next_look:
                    yield from self._look()
                self._begin()
                self._give_out()
                with suppress(Empty):
                    wait = max(self._next_look - time.monotonic(), 0.0)
                    yield from self._events.get(timeout=wait)()
        finally:
            self._leave()

    def _look(self) -> Iterator[Done]:
        """See which workers have come and gone."""
        try:
            present = set(self._client.nthreads())
        except (OSError, TimeoutError, CancelledError) as error:
            raise self._gone() from error
        if self._client.status != "running":
            raise self._gone()
        for worker in self._present - present:
            yield from self._lose(worker)
        for worker in sorted(present - self._present):
            self._submit(worker, greet, self._order)
        self._present = present
        if not present and not self._is_waiting:
            logger.info("waiting for workers")
        self._is_waiting = not present
        self._next_look = time.monotonic() + LOOK_SECONDS

    def _gone(self) -> GsdError:
        return GsdError(
            f"{self._client.scheduler.address}: the scheduler is gone: what is finished is kept,"
            " and the same command goes on"
        )

    def _lose(self, worker: str) -> Iterator[Done]:
        future, given = self._futures.pop(worker, None), self._tasks.pop(worker, None)
        if future is not None:
            future.cancel()
        if self._answers is not None:
            self._answers.pop(worker, None)
        if self._machines.pop(worker, None) is None:
            return
        counts = given is not None and self._recorded(given.task) <= given.recorded
        ended = self._queue.lose_worker(worker, counts=counts)
        if given is None:
            logger.info("%s: this worker has gone", worker)
            return
        slide = self._told[given.task.slide][0]
        logger.warning("%s: this worker has gone: another goes on with %s", worker, slide)
        if ended:
            error = GsdError(f"{slide}: its workers have died, perhaps for want of memory")
            yield given.task, Report(error=error), True

    def _begin(self) -> None:
        """Welcome those that are there when all have answered, the largest group of them first."""
        answers = self._answers
        if answers and (not self._futures or time.monotonic() >= self._latest_begin):
            self._answers = None
            devices = {worker: getattr(answer, "device", "") for worker, answer in answers.items()}
            often = Counter(devices.values())
            for worker in sorted(answers, key=lambda worker: -often[devices[worker]]):
                self._welcome(worker, answers[worker])

    def _give_out(self) -> None:
        """Give each worker that has nothing to do something.

        Raises:
            GsdError: none that is there fits.
        """
        if self._refusal and not self._machines and not self._futures:
            raise GsdError(f"no worker fits: {self._refusal}")
        for worker, machine in self._machines.items():
            task = None if worker in self._tasks else self._queue.take(worker)
            if task is not None:
                self._tasks[worker] = _Given(task, self._recorded(task))
                resources = {"GPU": 1} if machine.gpus else None
                told = self._told[task.slide]
                self._submit(worker, self._perform, self._order, task, *told, resources=resources)

    def _submit(
        self,
        worker: str,
        function: Callable[..., object],
        *arguments: object,
        resources: dict[str, int] | None = None,
    ) -> None:
        future = self._client.submit(
            function, *arguments, workers=[worker], resources=resources, pure=False
        )
        self._futures[worker] = future
        future.add_done_callback(partial(self._fetch, worker))

    def _fetch(self, worker: str, future: "Future") -> None:
        """In a thread of Dask's: get what a worker has said."""
        answer: object
        try:
            answer = future.result(timeout=FETCH_SECONDS)
        except Exception as error:
            answer = error
        self._events.put(partial(self._take_in, worker, future, answer))

    def _take_in(self, worker: str, future: "Future", answer: object) -> Iterator[Done]:
        if self._futures.get(worker) is not future:
            return  # of a worker that is gone
        if isinstance(answer, CancelledError | TimeoutError):
            yield from self._lose(worker)
            self._present.discard(worker)  # if it is there, it is greeted again
            return
        del self._futures[worker]
        if self._answers is not None:
            self._answers[worker] = answer
            return
        if worker not in self._machines:
            self._welcome(worker, answer)
            return
        given = self._tasks[worker]
        if not isinstance(answer, Report):
            slide = self._told[given.task.slide][0]
            answer = Report(error=GsdError(f"{slide}: {worker} cannot do it: {_told(answer)}"))
        for level, text in answer.told:
            logger.log(level, "%s", text)
        if isinstance(answer.error, InUseError):
            failed = partial(self._fail, worker, given, answer)
            timer = Timer(IN_USE_SECONDS, self._events.put, [failed])
            timer.daemon = True  # a command that ends does not wait for it
            timer.start()
        elif answer.error is not None:
            yield from self._fail(worker, given, answer)
        else:
            del self._tasks[worker]
            seconds = answer.seconds - answer.fixed
            done = self._queue.finish(
                worker, parts=answer.parts, seconds=seconds, fixed=answer.fixed
            )
            yield given.task, answer, done

    def _fail(self, worker: str, given: "_Given", report: Report) -> Iterator[Done]:
        if self._tasks.get(worker) is given:
            del self._tasks[worker]
            logger.debug("%s: %s", worker, _told(report.error))
            if self._queue.give_back(worker):
                yield given.task, report, True

    def _welcome(self, worker: str, answer: object) -> None:
        """Let a worker have work if it fits."""
        first = next(iter(self._machines.values()), None)
        if isinstance(answer, Machine):
            refusal = refusal_of(answer, self._order.digest, self._order.folder, first)
        else:
            refusal = f"it does not work: {_told(answer)}"
        if refusal is not None:
            logger.warning("%s: this worker gets no work: %s", worker, refusal)
            self._refusal = f"{worker}: {refusal}"
            return
        assert isinstance(answer, Machine)
        for name, here, there in () if first is None else differences_of(answer, first):
            logger.warning(
                "%s: %s %s here, %s elsewhere: a few pixels can differ", worker, name, here, there
            )
        self._machines[worker] = answer
        self._queue.add_worker(worker)

    def _leave(self) -> None:
        """Let workers go; what they are at they finish."""
        with suppress(Exception):
            self._client.cancel(list(self._futures.values()))
            for worker in self._machines:
                fire_and_forget(self._client.submit(forget, workers=[worker], pure=False))


@dataclass(frozen=True, eq=False)
class _Given:
    """A task that a worker has, and how much of it was recorded before."""

    task: Task
    recorded: int


def _told(error: object) -> str:
    return one_line(error) if isinstance(error, BaseException) else f"it answers {error!r:.40}"
