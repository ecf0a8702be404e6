"""``gsd segment --dask local:N`` beside the plain command, on the same generated slides.

    python benchmarks/fleet/local_workers.py [--slides 20] [--most 400] [--workers 1]
        [--architecture small] [--model-mpp 0.5] [--keep FOLDER]

    python benchmarks/fleet/local_workers.py --slides 200 --workers 2 --architecture convolutions
        --model-mpp 1 --keep FOLDER

The second is the run of slides from 1 to 400 Mpx; the folder keeps its slides (5 GB) for the next.

Slides have 1 to ``--most`` megapixels, evenly by the logarithm, tissue everywhere. Printed are

- CPU time, that of all processes, of both commands, and the same without what comes before the
  first slide (imports, starting workers), which is told by a run of one slide of 0.1 megapixels;
- of the workers, the work that they did (the seconds of all slides) against their number and the
  time of the command, its start included: 1 would be the ideal;
- the most memory of a worker in the second and in the last fifth of the run;
- whether all masks have the same bytes.
"""

import argparse
import csv
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "segmenting"))
from memory import write_model, write_slide


class Run:
    """A command that has ended.

    Attributes:
        seconds: of wall-clock time.
        cpu: seconds of CPU time, those of its children too.
        memory: (seconds since it began, bytes) of its largest child, twice a second.
    """

    def __init__(self, command: list[str]) -> None:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        begin = time.perf_counter()
        self.memory: list[tuple[float, int]] = []
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            own = psutil.Process(process.pid)
            while process.poll() is None:
                time.sleep(0.5)
                try:
                    held = [child.memory_info().rss for child in own.children(recursive=True)]
                except psutil.Error:
                    continue
                self.memory.append((time.perf_counter() - begin, max(held, default=0)))
        assert process.returncode == 0, command
        self.seconds = time.perf_counter() - begin
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.cpu = sum(getattr(after, n) - getattr(before, n) for n in ("ru_utime", "ru_stime"))

    def most_memory(self, first: float, last: float) -> int:
        """In the part of the run between two fractions of its time."""
        span = [held for at, held in self.memory if first <= at / self.seconds <= last]
        return max(span, default=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slides", type=int, default=20)
    parser.add_argument("--most", type=float, default=400, help="megapixels")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--architecture", default="small")
    parser.add_argument("--model-mpp", type=float, default=0.5, help="the slides have 0.5")
    parser.add_argument("--keep", type=Path, help="folder for the files, kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        for name in ("least_plain", "least_fleet", "plain", "fleet"):  # of another run
            shutil.rmtree(folder / name, ignore_errors=True)
        for name in ("slides", "least", "plain", "fleet"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        random.seed(0)
        pixels = [1e6 * options.most ** random.random() for _ in range(options.slides)]
        for number, area in enumerate(pixels):
            path = folder / "slides" / f"{number:03d}.tif"
            if not path.exists():
                write_slide(path, int(area**0.5))
        write_slide(folder / "least" / "least.tif", 316)
        write_model(folder / "model.ts", options.architecture, 256, options.model_mpp)

        def command(slides: str, output: str, *more: str) -> list[str]:
            named = [str(folder / slides), "-o", str(folder / output)]
            asked = ["--model", str(folder / "model.ts"), "--device", "cpu", "-q", *more]
            return [sys.executable, "-m", "gsd", "segment", *named, *asked]

        dask = ["--dask", f"local:{options.workers}"]
        starts = Run(command("least", "least_plain")), Run(command("least", "least_fleet", *dask))
        plain, fleet = Run(command("slides", "plain")), Run(command("slides", "fleet", *dask))
        with (folder / "fleet" / "summary.csv").open(encoding="utf-8", newline="") as table:
            work = sum(float(row["seconds"]) for row in csv.DictReader(table))
        masks = sorted((folder / "plain").glob("*_mask.tif"))
        same = sum(m.read_bytes() == (folder / "fleet" / m.name).read_bytes() for m in masks)
        started = [plain.cpu - starts[0].cpu, fleet.cpu - starts[1].cpu]
        print(
            f"{options.slides} slides, {sum(pixels) / 1e6:.0f} Mpx, {options.architecture},"
            f" {options.workers} workers, {os.cpu_count()} cores, load {os.getloadavg()[1]:.1f}\n"
            f"CPU s: plain {plain.cpu:.1f}, fleet {fleet.cpu:.1f}: {fleet.cpu / plain.cpu:.3f}\n"
            f"CPU s once started: {started[0]:.1f}, {started[1]:.1f}:"
            f" {started[1] / started[0]:.3f}\n"
            f"time: plain {plain.seconds:.1f} s, fleet {fleet.seconds:.1f} s; work / workers / time"
            f" {work / options.workers / fleet.seconds:.3f}\n"
            f"largest worker: {fleet.most_memory(0.2, 0.4) / 1e6:.0f} MB,"
            f" {fleet.most_memory(0.8, 1.0) / 1e6:.0f} MB\n"
            f"{same} of {len(masks)} masks have the same bytes"
        )


if __name__ == "__main__":
    main()
