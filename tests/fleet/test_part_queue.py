"""The queue of parts by itself: whatever workers do, every slide ends, and early."""

import heapq
import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genselfdiff.fleet import part_queue
from genselfdiff.fleet.part_queue import FAILURES, Kind, PartQueue, Size, Task


def pieces(task: Task) -> dict[int, int]:
    """The pixels of the parts that a slide is cut into."""
    bounds = (0.0, *task.cuts, 1.0)
    ends = [round(bound * task.pixels) for bound in bounds]
    return {i: last - first for i, (first, last) in enumerate(itertools.pairwise(ends), start=1)}


@given(
    sizes=st.lists(st.integers(0, 2000), min_size=1, max_size=12),
    seed=st.integers(0, 2**32),
    trouble=st.sampled_from([0.0, 0.2, 0.6]),
    shared=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_whatever_workers_do_every_slide_ends_once(sizes, seed, trouble, shared):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(part_queue, "SMALLEST", 10)
        rng = random.Random(seed)
        names = itertools.count()
        queue = PartQueue(
            [Size(size, 5) for size in sizes], shared=[0] if shared else (), expected=3
        )
        idle, busy, ended = set(), {}, []
        done: dict[int, list[int]] = {}
        cut: dict[int, dict[int, int]] = {}
        held: set[tuple[int, Kind, int]] = set()

        def add():
            worker = next(names)
            queue.add_worker(worker)
            idle.add(worker)

        add()
        while queue.left:
            if rng.random() < 0.1 or not (idle or busy):
                add()
            for worker in sorted(idle):
                task = queue.take(worker)
                if task is not None:
                    idle.remove(worker)
                    busy[worker] = task
                    named = (task.slide, task.kind, task.part)
                    assert named not in held, "two workers have it"
                    assert task.slide not in ended
                    held.add(named)
            assert busy, "nothing is done, and slides are left"
            worker = rng.choice(sorted(busy))
            task = busy.pop(worker)
            held.remove((task.slide, task.kind, task.part))
            event = rng.random()
            if event < trouble / 2:
                if queue.lose_worker(worker, counts=rng.random() < 0.5):
                    ended.append(task.slide)
                continue
            idle.add(worker)
            if event < trouble:
                if queue.give_back(worker):
                    ended.append(task.slide)
                continue
            if task.kind is Kind.PART and task.slide not in ended:
                done[task.slide].append(task.part)
            if task.kind is Kind.CUT and task.slide not in ended:
                cut[task.slide] = pieces(task)
                done[task.slide] = []
            if task.kind is Kind.MERGE:
                assert sorted(done[task.slide]) == sorted(cut[task.slide])
            parts = cut.get(task.slide) if task.kind is Kind.CUT else None
            if queue.finish(worker, parts=parts, seconds=1.0, fixed=0.1):
                ended.append(task.slide)
        assert sorted(ended) == list(range(len(sizes)))


def test_a_task_that_fails_is_tried_elsewhere_and_then_ends_its_slide():
    queue = PartQueue([Size(100, 1), Size(50, 1)])
    for worker in "abc":
        queue.add_worker(worker)
    first = queue.take("a")
    assert (first.slide, first.kind) == (0, Kind.WHOLE)
    assert not queue.give_back("a")
    assert queue.take("a").slide == 1  # not what has failed there
    assert queue.take("b") == first
    assert not queue.give_back("b")
    assert queue.take("b") is None
    assert queue.take("c") == first
    assert queue.give_back("c")
    assert queue.left == 1
    assert queue.finish("a")
    assert queue.left == 0


def test_one_worker_alone_tries_again():
    queue = PartQueue([Size(100, 1)])
    queue.add_worker("a")
    for failure in range(FAILURES):
        assert queue.take("a") is not None
        assert queue.give_back("a") == (failure + 1 == FAILURES)


def test_workers_that_die_elsewhere_than_at_their_task_end_no_slide():
    queue = PartQueue([Size(100, 1)])
    for number in range(20):
        queue.add_worker(number)
        assert queue.take(number).slide == 0
        assert not queue.lose_worker(number, counts=False)
    for number in range(20, 20 + FAILURES):
        queue.add_worker(number)
        assert queue.take(number).slide == 0
        assert queue.lose_worker(number, counts=True) == (number == 19 + FAILURES)


def test_a_worker_goes_on_with_the_slide_it_has_open():
    queue = PartQueue([Size(10**9 - number, 1) for number in range(10)], expected=8)
    for worker in "ab":
        queue.add_worker(worker)
    tasks = {worker: queue.take(worker) for worker in "ab"}
    for worker, task in tasks.items():
        assert task.kind is Kind.CUT
        queue.finish(worker, parts=pieces(task))
    taken = {worker: queue.take(worker).slide for worker in "ba"}
    assert taken == {"a": 0, "b": 1}


def test_one_worker_has_nothing_cut():
    queue = PartQueue([Size(10**9, 1)])
    queue.add_worker("a")
    assert queue.take("a").kind is Kind.WHOLE


def test_slides_that_others_have_begun_are_done_as_they_have_begun_them():
    queue = PartQueue([Size(10**9, 1)] * 2, whole=[0], shared=[1], expected=4)
    queue.add_worker("a")
    queue.add_worker("b")
    kinds = {task.slide: task for task in (queue.take("a"), queue.take("b"))}
    assert kinds[0].kind is Kind.WHOLE
    assert (kinds[1].kind, kinds[1].cuts) == (Kind.CUT, ())


def makespan(sizes: list[int], workers: int, speed, cost: int) -> tuple[float, float]:
    """When the last of some workers ends, and when each would if all ended at once.

    Args:
        sizes: of slides in pixels.
        workers: how many.
        speed: pixels a second of a worker.
        cost: pixels that each part takes beside its own.
    """
    queue = PartQueue([Size(size, cost) for size in sizes], expected=workers)
    for worker in range(workers):
        queue.add_worker(worker)
    events: list[tuple[float, int, Task]] = []
    idle, now, work = set(range(workers)), 0.0, 0.0
    while queue.left:
        for worker in sorted(idle):
            if (task := queue.take(worker)) is not None:
                idle.remove(worker)
                pixels = 0 if task.kind in (Kind.CUT, Kind.MERGE) else task.pixels
                seconds = (pixels + cost) / speed(worker)
                work += seconds * speed(worker)
                heapq.heappush(events, (now + seconds, worker, task))
        now, worker, task = heapq.heappop(events)
        parts = pieces(task) if task.kind is Kind.CUT else None
        queue.finish(worker, parts=parts, seconds=task.pixels / speed(worker))
        idle.add(worker)
    return now, work / sum(map(speed, range(workers)))


@pytest.mark.parametrize("workers", [2, 3, 5, 16])
def test_workers_end_together(workers):
    rng = random.Random(workers)
    for _ in range(10):
        sizes = [int(10 ** rng.uniform(6, 8.6)) for _ in range(rng.choice([1, 3, 40, 200]))]
        sizes[0] = 4 * 10**8
        ended, ideal = makespan(sizes, workers, lambda worker: 1e6 * (1 + worker % 3), 10**5)
        assert ended < 1.1 * ideal + 8  # the slowest takes six seconds for the smallest part


def test_two_hundred_slides_on_two_workers():
    rng = random.Random(0)
    sizes = [int(10 ** rng.uniform(6, 8.6)) for _ in range(200)]
    ended, ideal = makespan(sizes, 2, lambda worker: 2e6, 10**6)
    assert ideal / ended > 0.99
