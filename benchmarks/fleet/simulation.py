"""A thousand workers and a hundred thousand slides, in simulated time, with the real queue.

    python benchmarks/fleet/simulation.py [--workers 1000] [--slides 100000] [--seed 0]
    python benchmarks/fleet/simulation.py --workers 10 --early 1 --late 60 --slides 20 [--cut-for 4]

Slides have 10 megapixels to 10 gigapixels, log-normal about 1, of which 2 to 60 % are tissue. A
worker is up to ``--spread``, a third, faster or slower than the mean and takes, by default, what
was measured on two cores (benchmarks/RESULTS.md, "The fleet"): seconds to open a slide and lay it
out, for a megapixel of tissue and of glass, and to join a megapixel. Each part predicts a row of
tiles more.
Workers die now and then (each once in two days); the part goes on where it was, on another worker,
and a new one comes in two minutes. The coordinator hands out one task after the other, and takes
for each what it takes in this process and ``--exchange`` for Dask's messages.

Of the second form, ``--early`` workers are there at the beginning and the others come ``--late``
seconds after it, which the queue does not know; ``--cut-for`` is how many it cuts slides for, at
the least.
"""

import argparse
import heapq
import itertools
import math
import random
import time
from dataclasses import dataclass

from genselfdiff.fleet.part_queue import Kind, PartQueue, Size, Task


@dataclass(frozen=True)
class Slide:
    """A slide: its size, and the part of it that is tissue."""

    size: Size
    tissue: float


def slides_of(count: int, rng: random.Random) -> list[Slide]:
    """Slides of a large archive, nearly square; rows of tiles have 512 pixels of height."""

    def make() -> Slide:
        pixels = int(min(max(rng.lognormvariate(math.log(1e9), 1.0), 1e7), 1e10))
        return Slide(Size(pixels, int(pixels**0.5) * 512), rng.uniform(0.02, 0.6))

    return [make() for _ in range(count)]


class Simulation:
    """Workers, the coordinator and their time.

    Args:
        slides: what is to be done.
        options: workers and costs, see ``main``.
        rng: chance.
    """

    def __init__(
        self, slides: list[Slide], options: argparse.Namespace, rng: random.Random
    ) -> None:
        self.slides, self.options, self.rng = slides, options, rng
        self.queue = PartQueue([slide.size for slide in slides], expected=options.cut_for)
        self.names = itertools.count()
        self.speed: dict[int, float] = {}
        self.open: dict[int, int] = {}
        self.events: list[tuple[float, int, int, str]] = []
        self.order = itertools.count()
        self.tasks: dict[int, tuple[Task, float, float]] = {}  # and when it began and ends
        self.left: dict[Task, float] = {}  # of tasks whose worker died: seconds at mean speed
        self.idle: set[int] = set()
        self.busy = self.work = self.present = self.coordinator = self.in_queue = 0.0
        self.coordinator_free = 0.0
        self.counts = dict.fromkeys((*Kind, "deaths"), 0)

    def add(self, now: float, kind: str, worker: int) -> None:
        heapq.heappush(self.events, (now, next(self.order), worker, kind))

    def come(self, now: float) -> None:
        worker = next(self.names)
        self.speed[worker] = 1 + self.options.spread * self.rng.uniform(-1, 1)
        self.queue.add_worker(worker)
        self.idle.add(worker)
        self.add(now + self.rng.expovariate(1 / self.options.lifetime), "dies", worker)

    def seconds(self, worker: int, task: Task) -> float:
        """At the mean speed."""
        slide, costs = self.slides[task.slide], self.options
        opening = 0.0 if self.open.get(worker) == task.slide else costs.opening
        self.open[worker] = task.slide
        if task in self.left:
            return opening + self.left[task]
        megapixels = task.pixels / 1e6
        if task.kind is Kind.CUT:
            return opening
        if task.kind is Kind.MERGE:
            return costs.joining * slide.size.pixels / 1e6
        if task.kind is Kind.PART:
            megapixels += slide.size.row / 1e6
        tissue = costs.tissue * slide.tissue + costs.glass * (1 - slide.tissue)
        return opening + megapixels * tissue

    def needed(self) -> float:
        """Seconds at the mean speed for all slides, of which none is cut."""
        pixels = [slide.size.pixels for slide in self.slides]
        return sum(self.seconds(-1, Task(i, Kind.WHOLE, pixels[i])) for i in range(len(pixels)))

    def give_out(self, now: float) -> None:
        for worker in sorted(self.idle):
            begin = time.perf_counter()
            task = self.queue.take(worker)
            taken = time.perf_counter() - begin
            self.in_queue += taken
            if task is None:
                break  # nor is there anything for the others: none has failed
            # The coordinator does one after the other.
            cost = taken + self.options.exchange
            start = max(now, self.coordinator_free) + cost
            self.coordinator_free, self.coordinator = start, self.coordinator + cost
            self.idle.remove(worker)
            work = self.seconds(worker, task)
            self.work += work
            seconds = work / self.speed[worker]
            self.tasks[worker] = task, start, start + seconds
            self.counts[task.kind] += 1
            self.add(start + seconds, "ends", worker)

    def run(self) -> float:
        """Do all of it; return how long it took."""
        for _ in range(self.options.early):
            self.come(0.0)
        for _ in range(self.options.workers - self.options.early):
            self.add(self.options.late, "comes", -1)
        now, before = 0.0, 0.0
        while self.queue.left:
            self.give_out(now)
            now, _, worker, kind = heapq.heappop(self.events)
            self.present += (now - before) * len(self.queue._workers)
            before = now
            if kind == "comes":
                self.come(now)
                continue
            if worker not in self.speed:
                continue
            task, begun, ends = self.tasks.pop(worker, (None, 0.0, 0.0))
            if kind == "dies":
                self.counts["deaths"] += 1
                self.queue.lose_worker(worker, counts=False)
                if task is not None:
                    self.busy += max(now - begun, 0.0)
                    # The row of tiles that it was at is done once more.
                    done = max(now - begun - 5.0, 0.0) * self.speed[worker]
                    whole = (ends - begun) * self.speed[worker]
                    self.left[task] = max(whole - done, 0.0)
                self.idle.discard(worker)
                del self.speed[worker]
                self.add(now + 120.0, "comes", worker)
                continue
            assert task is not None
            self.busy += ends - begun
            self.left.pop(task, None)
            begin = time.perf_counter()
            parts = None
            if task.kind is Kind.CUT:
                bounds = [round(b * task.pixels) for b in (0.0, *task.cuts, 1.0)]
                spans = itertools.pairwise(bounds)
                parts = {i: last - first for i, (first, last) in enumerate(spans, start=1)}
            self.queue.finish(
                worker,
                parts=parts,
                seconds=(ends - begun) - self.options.opening,
                fixed=self.options.opening if task.kind in (Kind.CUT, Kind.PART) else 0.0,
            )
            self.in_queue += time.perf_counter() - begin
            self.idle.add(worker)
        return now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--slides", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--opening", type=float, default=1.0, help="seconds of a slide")
    parser.add_argument("--tissue", type=float, default=0.5, help="seconds of a megapixel")
    parser.add_argument("--glass", type=float, default=0.01, help="seconds of a megapixel")
    parser.add_argument("--joining", type=float, default=0.01, help="seconds of a megapixel")
    parser.add_argument("--exchange", type=float, default=0.01, help="seconds of a task with Dask")
    parser.add_argument("--lifetime", type=float, default=2 * 86400.0, help="seconds of a worker")
    parser.add_argument("--spread", type=float, default=1 / 3, help="of the speeds of workers")
    parser.add_argument("--early", type=int, help="workers at the beginning; default: all")
    parser.add_argument("--late", type=float, default=0.0, help="when the others come, seconds")
    parser.add_argument("--cut-for", type=int, help="workers, at the least; default: those early")
    options = parser.parse_args()
    options.early = options.early or options.workers
    options.cut_for = options.cut_for or options.early
    rng = random.Random(options.seed)
    slides = slides_of(options.slides, rng)
    simulation = Simulation(slides, options, rng)
    began = time.perf_counter()
    seconds = simulation.run()
    took = time.perf_counter() - began
    counts = simulation.counts
    needed = simulation.needed()
    alone = options.early * options.late
    ideal = options.late + (needed - alone) / options.workers
    ideal = ideal if needed > alone else needed / options.early
    tasks = sum(counts[kind] for kind in Kind)
    print(
        f"{options.workers} workers, {options.slides} slides of"
        f" {sum(slide.size.pixels for slide in slides) / 1e12:.1f} Tpx in all:"
        f" {seconds / 3600:.2f} h\n"
        f"{ideal / seconds:.2f} of the speed where nobody waits and nothing is cut;"
        f" {simulation.work / needed:.2f} times the work of that\n"
        f"idle: {1 - simulation.busy / simulation.present:.2%} of the workers' time\n"
        f"{counts[Kind.WHOLE]} slides whole, {counts[Kind.CUT]} cut into {counts[Kind.PART]} parts,"
        f" {counts[Kind.MERGE]} joined; {counts['deaths']} workers died\n"
        f"coordinator: {tasks / seconds:.2f} tasks a second, busy"
        f" {simulation.coordinator / seconds:.1%} of the time;"
        f" the queue itself {1e6 * simulation.in_queue / tasks:.0f} us a task\n"
        f"simulated in {took:.0f} s"
    )


if __name__ == "__main__":
    main()
