"""Runs, or evaluations of models, side by side: one table, one plot, differences image by image."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import wilcoxon

from genselfdiff.errors import InputError, ModelError
from genselfdiff.evaluation.bootstrap import mean_interval
from genselfdiff.evaluation.evaluation_file import read_evaluation
from genselfdiff.files import atomic_file, write_csv
from genselfdiff.text import aligned, shown
from genselfdiff.training.curves import plot_label
from genselfdiff.training.run_folder import RunFolder, read_checkpoint
from genselfdiff.training.settings.run_config import NO_INIT
from genselfdiff.training.settings.stage_configs import (
    FinetuneConfig,
    PretrainConfig,
    read_run_config,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOSS = "validation loss"
SCORE = "validation Dice"
OBJECT_SCORE = "validation PQ"
TEST_SCORE = "mean Dice"

_UNTOLD = ("origin", "train_images")
"""Settings that "start" and the number of training images stand for."""


@dataclass(frozen=True)
class Candidate:
    """One run or evaluation.

    Attributes:
        name: what the user called it, as short as it is clear.
        kind: what ``score``, ``images`` and ``curve`` are: one of `LOSS`, `SCORE`,
            `OBJECT_SCORE` or `TEST_SCORE`.
        settings: what tells it from the others, for people.
        score: the best of a run's validations; of an evaluation, the mean of its images.
        images: score of each image by name, those of a run at its best validation.
        curve: (step, score) of a run's validations.
    """

    name: str
    kind: str
    settings: dict[str, str]
    score: float
    images: dict[str, float]
    curve: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Difference:
    """Of a candidate from the first one, over the images that both have.

    Attributes:
        images: how many these are.
        mean: of the differences.
        interval: 95 % bootstrap interval of the mean; None of fewer than two images.
        p_value: of Wilcoxon's signed-rank test, two-sided; None of fewer than two images, or
            where no image differs.
    """

    images: int
    mean: float
    interval: tuple[float, float] | None
    p_value: float | None


@dataclass(frozen=True)
class Comparison:
    """Candidates in the order that they were named in; the first is what the others differ from."""

    candidates: tuple[Candidate, ...]

    @cached_property
    def differences(self) -> tuple[Difference | None, ...]:
        """Of each candidate from the first; None of itself, and where no image is common."""
        first = self.candidates[0]
        return (None, *(_difference(first, other) for other in self.candidates[1:]))

    def table(self) -> str:
        """Aligned text for terminals."""
        first = self.candidates[0]
        apart = [
            f"{other.name} and {first.name} have no image in common: their scores do not compare"
            for other, difference in zip(self.candidates, self.differences, strict=True)
            if other is not first and other.images and first.images and difference is None
        ]
        return "\n".join([*aligned(self._rows()), *map(shown, apart)])

    def write_csv(self, path: str | Path) -> None:
        """Write the table.

        Raises:
            OutputError: the file cannot be written.
        """
        titles, *rows = self._rows()
        write_csv(path, titles, rows)

    def draw(self, path: str | Path) -> None:
        """Draw validation curves and the scores of images as PNG.

        Raises:
            OutputError: the file cannot be written.
        """
        from matplotlib.figure import Figure  # writes a cache into HOME, which a table needs not

        with_curve = [c for c in self.candidates if c.curve]
        with_images = [c for c in self.candidates if c.images]
        panels = bool(with_curve) + bool(with_images)
        figure = Figure(figsize=(6 * panels, 4.5), layout="constrained")
        axes = list(figure.subplots(1, panels, squeeze=False)[0])
        colours = {c.name: f"C{number}" for number, c in enumerate(self.candidates)}
        if with_curve:
            curves = axes.pop(0)
            for candidate in with_curve:
                steps, scores = zip(*candidate.curve, strict=True)
                curves.plot(
                    steps,
                    scores,
                    marker=".",
                    color=colours[candidate.name],
                    label=plot_label(candidate.name),
                )
            curves.set_xlabel("step")
            curves.set_ylabel(with_curve[0].kind)
            curves.legend()
            curves.grid(alpha=0.3)
        if with_images:
            _draw_images(axes.pop(), with_images, colours)
        with atomic_file(path) as temporary:
            figure.savefig(temporary, format="png", dpi=120)

    def _rows(self) -> list[list[str]]:
        first = self.candidates[0]
        varying = [
            name
            for name in dict.fromkeys(n for c in self.candidates for n in c.settings)
            if len({c.settings.get(name) for c in self.candidates}) > 1
        ]
        rows = [["run", *varying, first.kind]]
        if any(self.differences):
            rows[0] += ["images", f"minus {first.name}", "95 % interval", "p (Wilcoxon)"]
        for candidate, difference in zip(self.candidates, self.differences, strict=True):
            row = [candidate.name, *(candidate.settings.get(name, "-") for name in varying)]
            row.append(f"{candidate.score:.4f}")
            if any(self.differences):
                row += _cells(difference)
            rows.append(row)
        return rows


def compare(paths: Sequence[str | Path]) -> Comparison:
    """Read run folders of `gsd train`, and JSON files of `gsd evaluate`.

    Raises:
        InputError: fewer than two; one is neither; or they do not give the same kind of score.
        ModelError: a run is damaged, or has not been validated yet.
    """
    if len(paths) < 2:
        raise InputError("give at least two runs or evaluations to compare")
    names = _names([Path(path) for path in paths])
    candidates = tuple(
        _of_run(Path(path), name) if Path(path).is_dir() else _of_evaluation(Path(path), name)
        for path, name in zip(paths, names, strict=True)
    )
    first = candidates[0]
    for other in candidates:
        if other.kind != first.kind:
            raise InputError(
                f"{other.name} has a {other.kind}, but {first.name} a {first.kind}: compare runs of"
                " one stage and with one kind of score, or evaluations"
            )
    return Comparison(candidates)


def _of_run(path: Path, name: str) -> Candidate:
    run = RunFolder(path)
    config = read_run_config(run.config)
    best = read_checkpoint(run.weights_of(None)).state
    if best.best is None:
        raise ModelError(f"{run.best}: damaged: it has no score: restore it")
    records = [record for record in run.read_metrics() if "validation" in record]
    data: dict[str, int] = next((r["data"] for r in run.read_metrics() if "data" in r), {})
    told = {name: value for name, value in config.shareable().items() if name not in _UNTOLD}
    settings = {
        "start": "scratch" if config.init == NO_INIT else Path(config.init).name,
        **{name.replace("_", " "): str(value) for name, value in (data | told).items()},
    }
    return Candidate(
        name,
        _kind(config),
        settings,
        best.best,
        next((r.get("images", {}) for r in records if r["step"] == best.step), {}),
        tuple((record["step"], record["validation"]["score"]) for record in records),
    )


def _kind(config: PretrainConfig | FinetuneConfig) -> str:
    if isinstance(config, PretrainConfig):
        return LOSS
    return OBJECT_SCORE if config.instances else SCORE


def _of_evaluation(path: Path, name: str) -> Candidate:
    report = read_evaluation(path)
    scores = {image.name: image.mean_dice for image in report.images}
    images = {stem: float(score) for stem, score in scores.items() if np.isfinite(score)}
    if not images:
        raise InputError(f"{path}: no image has an object in mask or prediction: nothing to score")
    told = {
        "model": report.model.name,
        "classes": ", ".join(report.classes),
        "mpp": report.mpp,
        **report.settings,
    }
    return Candidate(
        name,
        TEST_SCORE,
        {name.replace("_", " "): str(value) for name, value in told.items() if value is not None},
        float(np.mean(list(images.values()))),
        images,
        (),
    )


def _difference(first: Candidate, other: Candidate) -> Difference | None:
    common = [name for name in first.images if name in other.images]
    if not common:
        return None
    values = np.array([other.images[name] - first.images[name] for name in common])
    tested = len(values) > 1 and values.any()
    return Difference(
        len(values),
        float(values.mean()),
        mean_interval(values),
        float(wilcoxon(values).pvalue) if tested else None,
    )


def _cells(difference: Difference | None) -> list[str]:
    if difference is None:
        return ["-"] * 4
    interval, p_value = difference.interval, difference.p_value
    return [
        str(difference.images),
        f"{difference.mean:+.4f}",
        "-" if interval is None else f"{interval[0]:+.4f} to {interval[1]:+.4f}",
        "-" if p_value is None else f"{p_value:.3g}",
    ]


def _draw_images(axes: "Axes", candidates: Sequence[Candidate], colours: dict[str, str]) -> None:
    """A dot for each image, images joined by a line, and the mean of each candidate."""
    common = set.intersection(*(set(candidate.images) for candidate in candidates))
    places = range(len(candidates))
    for name in sorted(common):
        axes.plot(places, [c.images[name] for c in candidates], color="0.8", linewidth=0.8)
    for place, candidate in zip(places, candidates, strict=True):
        values = list(candidate.images.values())
        axes.plot([place] * len(values), values, ".", color=colours[candidate.name])
        axes.plot([place], [np.mean(values)], "_", color="black", markersize=24)
    names = [plot_label(candidate.name) for candidate in candidates]
    axes.set_xticks(list(places), names, rotation=20)
    axes.set_xlim(-0.5, len(candidates) - 0.5)
    axes.set_ylabel(f"{candidates[0].kind} of each image")
    axes.grid(alpha=0.3, axis="y")


def _names(paths: Sequence[Path]) -> list[str]:
    """The last part of each path, or all of it where two would be alike."""
    short = [path.resolve().stem if path.is_file() else path.resolve().name for path in paths]
    return [
        name if short.count(name) == 1 else str(path)
        for name, path in zip(short, paths, strict=True)
    ]
