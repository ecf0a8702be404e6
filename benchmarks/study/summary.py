"""What the results of the study say: means, and differences of pairs with their intervals."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from plan import Arm, Plan, Run, digest

from genselfdiff.errors import InputError
from genselfdiff.evaluation.bootstrap import mean_interval
from genselfdiff.input_files import read_json

Result = dict[str, Any]
Key = tuple[str, int, str, int]


@dataclass(frozen=True)
class Results:
    """Results of a plan by the key of their run, and what is to be said of the others."""

    results: dict[Key, Result]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """Mean over images of the difference from a baseline in the same seed, and its interval."""

    mean: float
    interval: tuple[float, float] | None
    images: int


@dataclass(frozen=True)
class Row:
    """An arm at a budget of a data set.

    Attributes:
        dataset, budget, arm: which.
        done, wanted: its runs.
        training_images: mean of the runs.
        mean: of the images, each the mean of its seeds.
        interval: 95 %, over images.
        differences: by baseline, over the pairs that are there.
    """

    dataset: str
    budget: int
    arm: Arm
    done: int
    wanted: int
    training_images: float
    mean: float
    interval: tuple[float, float] | None
    differences: dict[str, Difference]


def read_results(folder: Path, plan: Plan) -> Results:
    """The results in ``folder`` that are of the plan as it is.

    Raises:
        InputError: no file of them, or one that is none.
    """
    runs = {run.key: run for run in plan.runs}
    results: dict[Key, Result] = {}
    remarks = []
    for path in sorted(folder.glob("*.json")):
        told = read_json(path)
        try:
            key = (told["dataset"], told["budget"], told["arm"], told["seed"])
            settings, images = told["settings"], told["images"]
            told["scores"], told["training_images"]
        except (KeyError, TypeError) as error:
            raise InputError(f"{path}: no result of the study: {error}") from error
        if key not in runs or digest(runs[key].settings) != settings:
            remarks.append(f"{path.name}: not of this plan, left out")
        elif key in results and results[key]["images"] != images:
            raise InputError(f"{path}: there is a result of the same run on other images")
        else:
            results[key] = told
    if not results:
        raise InputError(f"{folder}: no result of the plan: run.py makes them")
    return Results(results, tuple(remarks))


def summarise(plan: Plan, results: dict[Key, Result], metric: str) -> list[Row]:
    """A row for each arm, budget and data set that has a result, in the order of the plan."""
    wanted: defaultdict[tuple[str, int, str], list[Run]] = defaultdict(list)
    for run in plan.runs:
        wanted[run.key[:3]].append(run)
    rows = []
    for (dataset, budget, arm), runs in wanted.items():
        found = {run.seed: results[run.key] for run in runs if run.key in results}
        if not found:
            continue
        scores = _by_image((seed, _scores(result, metric)) for seed, result in found.items())
        differences = {}
        for baseline in plan.baselines:
            pairs = {
                seed: (result, results[dataset, budget, baseline, seed])
                for seed, result in found.items()
                if (dataset, budget, baseline, seed) in results
            }
            if arm != baseline and (difference := _difference(pairs, metric)):
                differences[baseline] = difference
        values = np.array([fmean(of_seeds) for of_seeds in scores.values()])
        rows.append(
            Row(
                dataset,
                budget,
                runs[0].arm,
                len(found),
                len(runs),
                fmean(result["training_images"] for result in found.values()),
                float(values.mean()) if len(values) else float("nan"),
                mean_interval(values),
                differences,
            )
        )
    return rows


def markdown(plan: Plan, rows: Sequence[Row], metric: str) -> str:
    """A table for each data set, and what of the plan has no result yet."""
    by_dataset: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_dataset[row.dataset].append(row)
    lines = [
        f"{metric}: mean over whole test images with its 95 % interval (bootstrap of images, each"
        " the mean of its seeds); then the mean difference of the same images and seeds.",
        "",
    ]
    titles = ["labels", "images", "arm", "runs", metric, *(f"minus {b}" for b in plan.baselines)]
    for dataset, members in by_dataset.items():
        lines += [f"## {dataset}", "", _line(titles), _line(["---"] * len(titles))]
        for row in sorted(members, key=lambda row: row.budget):
            cells = ["all" if row.budget == 1 else f"1/{row.budget}", f"{row.training_images:.0f}"]
            cells += [row.arm.name, _runs(row), _value(row.mean, row.interval)]
            for baseline in plan.baselines:
                difference = row.differences.get(baseline)
                cells.append(
                    "" if difference is None else _value(difference.mean, difference.interval, "+")
                )
            lines.append(_line(cells))
        lines.append("")
    begun = {(row.dataset, row.budget, row.arm.name) for row in rows}
    missing = {run.key[:3]: run for run in plan.runs if run.key[:3] not in begun}
    if missing:
        names = (run.name.rpartition("-")[0] for run in missing.values())
        lines += [f"Without any result: {', '.join(names)}.", ""]
    return "\n".join(lines)


def _runs(row: Row) -> str:
    return str(row.done) if row.done == row.wanted else f"incomplete: {row.done} of {row.wanted}"


def _value(mean: float, interval: tuple[float, float] | None, sign: str = "") -> str:
    if interval is None:
        return f"{mean:{sign}.4f}"
    return f"{mean:{sign}.4f} ({interval[0]:{sign}.4f} to {interval[1]:{sign}.4f})"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _scores(result: Result, metric: str) -> dict[str, float]:
    """Of the images where the metric is defined."""
    values = {image: scores[metric] for image, scores in result["scores"].items()}
    return {image: value for image, value in values.items() if value is not None}


def _by_image(by_seed: Iterable[tuple[int, dict[str, float]]]) -> dict[str, list[float]]:
    found: defaultdict[str, list[float]] = defaultdict(list)
    for _, scores in by_seed:
        for image, value in scores.items():
            found[image].append(value)
    return found


def _difference(pairs: dict[int, tuple[Result, Result]], metric: str) -> Difference | None:
    apart: list[tuple[int, dict[str, float]]] = []
    for seed, (result, baseline) in pairs.items():
        ours, theirs = _scores(result, metric), _scores(baseline, metric)
        apart.append((seed, {image: ours[image] - theirs[image] for image in ours.keys() & theirs}))
    by_image = _by_image(apart)
    values = np.array([fmean(by_image[image]) for image in sorted(by_image)])
    if not len(values):
        return None
    return Difference(float(values.mean()), mean_interval(values), len(values))
