"""Plots of the study: scores over the number of labelled images, and over the steps of stage 1."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from plan import STAGE_1, Plan
from summary import Row

from genselfdiff.files import atomic_file


def draw_labels(rows: Sequence[Row], metric: str, path: Path) -> None:
    """Score over the number of labelled images, of arms that have it for several."""
    several = {
        (row.dataset, row.arm.name)
        for row in rows
        for other in rows
        if (row.dataset, row.arm.name) == (other.dataset, other.arm.name)
        and row.budget != other.budget
    }
    lines: dict[str, dict[str, list[tuple[float, Row]]]] = {}
    for row in rows:
        if (row.dataset, row.arm.name) in several:
            of_dataset = lines.setdefault(row.dataset, {})
            of_dataset.setdefault(row.arm.name, []).append((row.training_images, row))
    _draw(lines, "labelled images that train", metric, path, log=True)


def draw_pretraining(plan: Plan, rows: Sequence[Row], metric: str, path: Path) -> None:
    """Score over the steps of stage 1, of arms that differ in these alone; 0: from scratch."""
    lines: dict[str, dict[str, list[tuple[float, Row]]]] = {}
    steps_of = {run.arm.name: run.pretrain_steps for run in plan.runs}
    for row in rows:
        arm = row.arm
        plain = not arm.alone.keys() - {"pretrain.steps"}
        if plain and arm.init in ("none", STAGE_1):
            of_dataset = lines.setdefault(row.dataset, {})
            label = "all labels" if row.budget == 1 else f"1/{row.budget} of the labels"
            of_dataset.setdefault(label, []).append((steps_of[arm.name], row))
    several = {
        dataset: {label: points for label, points in by_label.items() if len(points) > 2}
        for dataset, by_label in lines.items()
    }
    _draw({d: by for d, by in several.items() if by}, "steps of stage 1", metric, path)


def _draw(
    lines: dict[str, dict[str, list[tuple[float, Row]]]],
    title: str,
    metric: str,
    path: Path,
    *,
    log: bool = False,
) -> None:
    """A panel for each data set, a line for each name; what is incomplete is hollow."""
    if not lines:
        return
    figure = Figure(figsize=(5 * len(lines), 4), layout="constrained")
    panels = figure.subplots(1, len(lines), squeeze=False)[0]
    for axes, (dataset, by_name) in zip(panels, lines.items(), strict=True):
        for number, (name, unsorted) in enumerate(by_name.items()):
            points = sorted(unsorted, key=lambda point: point[0])
            x, y = [x for x, _ in points], [row.mean for _, row in points]
            axes.plot(x, y, color=f"C{number}", label=name)
            for place, row in points:
                low, high = row.interval or (row.mean, row.mean)
                axes.plot([place, place], [low, high], color=f"C{number}", alpha=0.4)
                filled = f"C{number}" if row.done == row.wanted else "white"
                axes.plot([place], [row.mean], "o", color=f"C{number}", markerfacecolor=filled)
        if log:
            axes.set_xscale("log", base=2)
        axes.set_title(dataset)
        axes.set_xlabel(title)
        axes.set_ylabel(metric)
        axes.grid(alpha=0.3)
        axes.legend()
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
