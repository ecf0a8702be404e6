"""GenSelfDiff-HIS put to the test: does pretraining by diffusion help, and from how few labels?

    python benchmarks/study/run.py --data FOLDER --results FOLDER [--only PATTERN] [--share 2/5]
        [--hours 2] [--dry-run]
    python benchmarks/study/table.py --results FOLDER --out FOLDER

The paper (IEEE TMI 2024) claims that a network which has learnt to remove noise from unlabelled
tiles makes more of few labels. ``plan.toml`` says what is compared: from scratch, pretrained, and
from scratch for the steps of both stages, on MoNuSeg, GlaS and NuInsSeg, with all labels and
fractions of them; then lengths of stage 1, losses, and what the paper leaves open. Each run is that
of `gsd train`, and is scored on whole images that neither stage has seen: seed s tests on part s of
the images (by patient, where patients are told), so that three seeds test each image once. A fifth
of the others chooses the checkpoint, whatever the budget: these labels are not counted in it.

--results gets a small JSON file for each run that is done, under a name made of its settings and of
its images' contents. What has a file is not done again. The most wanted runs come first, seed by
seed. Whenever this is stopped, by --hours, Ctrl-C or a kill, the same command goes on where it was.
Several processes may share --results and --work: a run is locked by the one that does it. On two
cores, two processes of one thread each (OMP_NUM_THREADS=1) do most. Machines that share no folder
take a --share each, and their files are copied together. Checkpoints lie in --work.

Left out, because gsd has no setting for it: the unused first skip, another time step than 0 in
stage 2, features of several time steps, and learning rates by layer. Also left out: encoders of
other people's (ImageNet, pathology), which gsd has no network to put into.
"""

import argparse
import math
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from estimate import print_estimate
from plan import Run, chosen, read_plan
from work import Taken, Workplace

from genselfdiff.errors import GsdError, InputError, TrainingError
from genselfdiff.training.loop.tracking import OnLog

POLL = 10.0
"""Seconds between looks at what other processes have finished."""


class TimeUp(Exception):
    """The hours are over; the step under way is saved."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the runs that have no result; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--results", type=Path, required=True, help="folder of the results")
    parser.add_argument(
        "--work", type=Path, help="folder of checkpoints; default: RESULTS with -work behind"
    )
    parser.add_argument("--plan", type=Path, default=Path(__file__).with_name("plan.toml"))
    parser.add_argument("--only", help="pattern of runs' names, or of parts of the plan")
    parser.add_argument("--share", type=_share, default=(1, 1), metavar="K/N")
    parser.add_argument("--hours", type=float, default=math.inf, help="after which to stop")
    parser.add_argument("--dry-run", action="store_true", help="tell what it would take")
    options = parser.parse_args(arguments)
    work = options.work or options.results.with_name(f"{options.results.name}-work")
    place = Workplace(options.data.resolve(), options.results, work.resolve())
    try:
        runs = chosen(read_plan(options.plan).runs, options.only, options.share)
        if not runs:
            raise InputError(f"{options.plan}: has no run for this --only and --share")
        absent = {r.dataset.images for r in runs if not (place.data / r.dataset.images).is_dir()}
        if absent:
            raise InputError(f"{place.data}: has no {', '.join(sorted(absent))}: give --only")
        if options.dry_run:
            print_estimate(place, runs)
            return 0
        failed = do_all(place, runs, time.monotonic() + 3600 * options.hours)
    except TimeUp:
        print("the hours are over: the same command goes on", flush=True)
        return 0
    except KeyboardInterrupt:
        return 130
    except GsdError as error:
        sys.exit(f"run.py: {error}")
    return 1 if failed else 0


def do_all(place: Workplace, runs: Sequence[Run], deadline: float) -> set[str]:
    """Do the runs in turn, each but once; the names of those that failed.

    Raises:
        TimeUp: the deadline has come.
        GsdError: the data cannot be used, say: what would fail every run.
    """

    def watch(figures: dict[str, float]) -> None:
        if time.monotonic() > deadline:
            raise TimeUp

    failed: set[str] = set()
    while True:
        left = [r for r in runs if r.name not in failed and not place.result(r).exists()]
        if not left:
            return failed
        if not any(_done(place, run, watch, failed) for run in left):
            if time.monotonic() > deadline:
                raise TimeUp
            time.sleep(POLL)  # all of them are other processes'


def _done(place: Workplace, run: Run, watch: OnLog, failed: set[str]) -> bool:
    """Whether this process has done the run, or found that it fails."""
    with place.claimed(place.name(run)) as mine:
        if not mine or place.result(run).exists():
            return False
        begin = time.monotonic()
        try:
            place.do(run, watch)
        except Taken:
            return False
        except TrainingError as error:
            print(f"{run.name}: failed: {error}", flush=True)
            failed.add(run.name)
            return True
        print(f"{run.name}: {time.monotonic() - begin:.0f} s", flush=True)
        return True


def _share(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"{text}: give K/N with K from 1 to N")
    return int(found[1]), int(found[2])


if __name__ == "__main__":
    sys.exit(main())
