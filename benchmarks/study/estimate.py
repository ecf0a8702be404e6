"""What the study would take: steps and seconds of each of its parts."""

from collections.abc import Sequence
from typing import NamedTuple

from images import lay
from plan import Run, stage_1_steps
from work import Workplace

from genselfdiff.training.dry_run import RunEstimate, estimate_run
from genselfdiff.training.runs import prepared
from genselfdiff.training.settings.run_config import RunConfig


class Costs(NamedTuple):
    """Seconds of a data set: of a step of either stage, of a validation, of the test.

    Of the test these are its predictions; scoring them takes about as long again.
    """

    pretrain: float
    finetune: float
    validation: float
    test: float


def print_estimate(place: Workplace, runs: Sequence[Run]) -> None:
    """Take a few steps on each data set, and print runs, steps and hours by part of the plan."""
    left = [run for run in runs if not place.result(run).exists()]
    print(f"{len(runs)} runs, of which {len(runs) - len(left)} are done")
    costs: dict[str, Costs] = {}
    for run in left:
        if run.dataset.name not in costs:
            found = costs[run.dataset.name] = _measured(place, run)
            print(
                f"{run.dataset.name}: {found.pretrain:.2f} s a step of stage 1,"
                f" {found.finetune:.2f} of stage 2, {found.validation:.1f} s a validation,"
                f" {found.test:.1f} s the test"
            )
    total, pretrained = 0.0, dict[str, int]()
    for part in dict.fromkeys(run.part for run in left):
        members = [run for run in left if run.part == part]
        steps, seconds = 0, 0.0
        for run in members:
            of, settings = costs[run.dataset.name], run.arm.finetune
            validations = -(-settings["steps"] // settings["validate_every"])
            steps += settings["steps"]
            seconds += settings["steps"] * of.finetune + validations * of.validation + of.test
        for run, wanted in stage_1_steps(members):
            further = max(0, wanted - pretrained.get(run.stage_1(""), 0))
            pretrained[run.stage_1("")] = max(wanted, pretrained.get(run.stage_1(""), 0))
            steps += further
            seconds += further * costs[run.dataset.name].pretrain
        total += seconds
        print(f"{part}: {len(members)} runs, {steps} steps, {seconds / 3600:.1f} hours")
    print(f"together {total / 3600:.1f} hours of one process, as it was measured here")


def _measured(place: Workplace, run: Run) -> Costs:
    development, test = lay(run, place.data, place.work / "images")
    first = _warm_estimate(place.stage_1(run, development))
    second = _warm_estimate(place.stage_2(run, development))
    validating = second.config.val  # type: ignore[attr-defined]
    images = len(list(test.images.iterdir()))
    return Costs(
        first.step_seconds,
        second.step_seconds,
        second.validation_seconds,
        second.validation_seconds / len(validating) * images,
    )


def _warm_estimate(config: RunConfig) -> RunEstimate:
    """The second of two: the first image that a process predicts takes much longer."""
    with prepared(config) as (task, step):
        estimate_run(task, step, measured=1, progress=False)
        return estimate_run(task, step, progress=False)
