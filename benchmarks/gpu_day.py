"""Build, prove and measure everything on a GPU, in one command that fits a short loan of one.

    python benchmarks/gpu_day.py --out FOLDER [--minutes 9] [--steps STEP ...] [--rehearse]

It needs no network and changes nothing of the Python that runs it: what it installs goes into a
folder of its own. OUT gets ``results.jsonl``, a line for whatever was found, ``table.md``, the same
to read, and ``log.txt``, what the steps have printed. All three grow while it runs, so that what
was reached counts even if it is killed. Each step has its own time. Where there is less time than
all of them want they shrink, and those of least worth are left out. A step that fails says so, and
the next one begins. With --rehearse the steps run on the CPU, with tiny sizes and Triton's
interpreter. The exit status is 1 where a step failed. docs/gpu.md tells the rest.
"""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

from gpu.commands import Day, run_command
from gpu.plan import Step, shares
from gpu.report import Report
from gpu.steps import STEPS

CLOSING = 3.0
"""Seconds kept for the end."""


def main() -> int:
    """Run the steps; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [step.name for step in STEPS]
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything; default: 9")
    parser.add_argument("--steps", nargs="+", choices=names, default=names, metavar="STEP")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with tiny sizes")
    parser.add_argument("--wheels", type=Path, help="folder of wheels that the machine lacks")
    parser.add_argument("--data", type=Path, help="folder that benchmarks/nuclei/prepare.py left")
    parser.add_argument("--train-minutes", type=float, default=3.0, help="at most, with --data")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="gsd-gpu-day-"))
    day = Day(
        out=options.out.resolve(),
        work=work,
        rehearsal=options.rehearse,
        wheels=options.wheels and options.wheels.resolve(),
        data=options.data and options.data.resolve(),
        train_seconds=60 * options.train_minutes,
    )
    report = Report(day.out)
    signal.signal(signal.SIGTERM, _stop)
    try:
        chosen = [step for step in STEPS if step.name in options.steps]
        minutes = 60 if day.rehearsal else options.minutes
        run_steps(chosen, day, report, time.monotonic() + 60 * minutes - CLOSING)
    finally:
        report.write()
        shutil.rmtree(work, ignore_errors=True)
    print(report.summary())
    return int(report.failed)


def run_steps(steps: list[Step], day: Day, report: Report, end: float) -> None:
    """Run each for its share of the time that is left when it begins."""
    for place, step in enumerate(steps):
        left = end - time.monotonic()
        waiting = [other for other in steps[place:] if runs(other, day)]
        seconds = shares(waiting, left).get(step.name, 0.0)
        if not seconds and step in waiting:
            report.leave_out(step, f"left out: {left:.0f} s remained")
            continue
        report.begin(step, seconds)
        # A rehearsal is for what is wrong, however busy its machine is.
        stop = time.monotonic() + seconds * (20 if day.rehearsal else 1)
        for command in step.commands(day, seconds):
            if command.absent:
                report.note(f"not here: {command.absent}")
                continue
            limit = stop - time.monotonic()
            report.ended(command, run_command(command, day, limit, report.take))
        report.end()


def runs(step: Step, day: Day) -> bool:
    """Whether anything of it can run here."""
    return any(not command.absent for command in step.commands(day, step.wanted))


def _stop(*_: object) -> NoReturn:
    sys.exit("stopped from outside")


if __name__ == "__main__":
    sys.exit(main())
