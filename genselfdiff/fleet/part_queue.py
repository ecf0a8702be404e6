"""Which part of which slide is done next: apart from Dask, from files, and from any clock.

Guided self-scheduling (Polychronopoulos and Kuck, IEEE Transactions on Computers, 1987): the
largest slides come first, and of what is left each part is a share that falls with it, so that
all workers end at almost the same time. A slide that is smaller than such a share is one part.
"""

from collections import deque
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

FAILURES = 3
"""So often a task may fail before its slide is given up."""

GUIDED = 4
"""A part is what is left, divided by this and by the workers: one may be a third as fast."""

STAY = 1.5
"""A worker goes on with the slide it has open unless another has a part so many times larger."""

LEAST_PARTS = 5
"""A part is so many times as much work as cutting it off costs, at the least."""

SMALLEST = 2**22
"""Pixels below which nothing is cut off, where the cost of that is not measured yet."""


class Kind(Enum):
    """What is done of a slide."""

    WHOLE = auto()
    CUT = auto()
    PART = auto()
    MERGE = auto()


@dataclass(frozen=True)
class Task:
    """What a worker does next.

    Attributes:
        slide: its number in the list.
        kind: what is done of it.
        pixels: how much of it, in pixels of the slide; 0: nothing is predicted.
        part: which part, of several.
        cuts: where a slide is cut: fractions that ascend, without 0 and 1.
    """

    slide: int
    kind: Kind
    pixels: int = 0
    part: int = 0
    cuts: tuple[float, ...] = ()


@dataclass(frozen=True)
class Size:
    """How much work a slide is.

    Attributes:
        pixels: of the slide.
        row: that a row of tiles has: so many are predicted twice where it is cut.
    """

    pixels: int
    row: int


class PartQueue:
    """Tasks for workers, in the order that lets all end early.

    Args:
        sizes: of the slides.
        whole: numbers of slides that one worker does alone, as another run has begun them.
        shared: numbers of slides that another run has cut: it is found where.
        expected: workers that will come: slides are cut as if they were there.
    """

    def __init__(
        self,
        sizes: Sequence[Size],
        *,
        whole: Collection[int] = (),
        shared: Collection[int] = (),
        expected: int = 1,
    ) -> None:
        self._sizes, self._whole, self._shared = sizes, frozenset(whole), frozenset(shared)
        self._slides = sorted(range(len(sizes)), key=lambda number: sizes[number].pixels)
        self._untouched = sum(size.pixels for size in sizes)
        self._expected = expected
        self._workers: set[Hashable] = set()
        self._held: dict[Hashable, Task] = {}
        self._latest: dict[Hashable, int] = {}
        self._merges: deque[Task] = deque()
        self._parts: dict[int, deque[Task]] = {}
        self._again: list[Task] = []
        self._open: dict[int, int] = {}
        self._failed: dict[Task, list[Hashable]] = {}
        self._ended: set[int] = set()
        self._fixed_seconds = self._fixed_count = self._seconds = self._pixels = 0.0

    @property
    def left(self) -> int:
        """Slides that are neither done nor given up."""
        return len(self._sizes) - len(self._ended)

    def add_worker(self, worker: Hashable) -> None:
        """A worker has come, and takes tasks one by one."""
        self._workers.add(worker)

    def lose_worker(self, worker: Hashable, *, counts: bool) -> bool:
        """A worker has gone: another does what it was at.

        Args:
            worker: which.
            counts: whether that is a failure of what it was at, which may be why it has gone.

        Returns:
            Whether the slide of that is given up, because that was once too often.
        """
        self._workers.discard(worker)
        self._latest.pop(worker, None)
        return worker in self._held and self.give_back(worker, counts=counts)

    def take(self, worker: Hashable) -> Task | None:
        """What a worker, which is at nothing, does next; None: nothing for now."""
        task = self._next(worker)
        if task is not None:
            self._held[worker] = task
            self._latest[worker] = task.slide
        return task

    def finish(
        self,
        worker: Hashable,
        *,
        parts: Mapping[int, int] | None = None,
        seconds: float = 0.0,
        fixed: float = 0.0,
    ) -> bool:
        """A worker has done what it took.

        Args:
            worker: which.
            parts: pixels of each part that is to be done, where a slide was cut.
            seconds: that it took, without ``fixed``.
            fixed: seconds that it would have taken for the smallest part.

        Returns:
            Whether the slide is done.
        """
        task = self._held.pop(worker)
        self._failed.pop(task, None)
        if task.slide in self._ended:
            return False
        if task.pixels and task.kind is not Kind.CUT:
            self._seconds += seconds
            self._pixels += task.pixels
        if fixed:
            self._fixed_seconds += fixed
            self._fixed_count += 1
        if task.kind in (Kind.WHOLE, Kind.MERGE):
            self._ended.add(task.slide)
            return True
        if task.kind is Kind.CUT:
            parts = parts or {}
            self._open[task.slide] = len(parts)
            self._parts[task.slide] = deque(
                Task(task.slide, Kind.PART, pixels, part) for part, pixels in parts.items()
            )
        else:
            self._open[task.slide] -= 1
        if not self._open[task.slide]:
            self._merges.append(Task(task.slide, Kind.MERGE))
        return False

    def give_back(self, worker: Hashable, *, counts: bool = True) -> bool:
        """A worker has not done what it took: another shall, if there is one.

        Args:
            worker: which.
            counts: whether the task has failed, and not only its worker.

        Returns:
            Whether the slide is given up, because that was once too often.
        """
        task = self._held.pop(worker)
        if task.slide in self._ended:
            return False
        failed = self._failed.setdefault(task, [])
        if counts:
            failed.append(worker)
        if len(failed) < FAILURES:
            self._again.append(task)
            return False
        self._ended.add(task.slide)
        self._parts.pop(task.slide, None)
        self._again = [other for other in self._again if other.slide != task.slide]
        return True

    def _next(self, worker: Hashable) -> Task | None:
        """Merges end a slide, and come first; then what is begun, large parts before small."""
        for task in self._again:
            if not self._workers.difference(self._failed[task]) or (
                worker not in self._failed[task]
            ):
                self._again.remove(task)
                return task
        if self._merges:
            return self._merges.popleft()
        if self._parts:
            slide = max(self._parts, key=lambda slide: self._parts[slide][0].pixels)
            own = self._parts.get(self._latest.get(worker, -1))
            if own and STAY * own[0].pixels >= self._parts[slide][0].pixels:
                slide = own[0].slide
            task = self._parts[slide].popleft()
            if not self._parts[slide]:
                del self._parts[slide]
            return task
        return self._begin(self._slides.pop()) if self._slides else None

    def _begin(self, number: int) -> Task:
        pixels = self._sizes[number].pixels
        cuts = () if number in self._whole | self._shared else self._cuts(number)
        self._untouched -= pixels
        if number in self._shared:
            return Task(number, Kind.CUT, pixels)
        return Task(number, Kind.CUT if cuts else Kind.WHOLE, pixels, cuts=cuts)

    def _cuts(self, number: int) -> tuple[float, ...]:
        """Where a slide is cut, so that its last part is not what all others wait for."""
        size = self._sizes[number]
        workers = max(len(self._workers), self._expected)
        if workers < 2:
            return ()
        least = max(LEAST_PARTS * max(size.row, self._fixed_pixels()), SMALLEST)
        done, cuts = 0.0, list[float]()
        while True:
            part = max((self._untouched - done) / (GUIDED * workers), least)
            if size.pixels - done < 1.5 * part:  # what is left is not cut once more
                return tuple(cuts)
            done += part
            cuts.append(done / size.pixels)

    def _fixed_pixels(self) -> float:
        """What a worker predicts in the time that the smallest part takes."""
        if not (self._fixed_count and self._seconds):
            return 0.0
        return self._fixed_seconds / self._fixed_count * self._pixels / self._seconds
