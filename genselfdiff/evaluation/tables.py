"""Scores as text and as CSV."""

import math
from collections.abc import Sequence
from pathlib import Path

from genselfdiff.evaluation.scores import (
    CLASS_METRICS,
    IMAGE_METRICS,
    EvaluationReport,
    Metric,
    Summary,
)
from genselfdiff.files import write_csv
from genselfdiff.text import aligned

_SHOWN_BY_IMAGE = ("dice", "iou", "hd95_um", "hd95_px", "aji", "pq")
"""With one class; with more, Dice only, or lines would be too long. All are in the files."""


def text_table(report: EvaluationReport) -> str:
    """Aligned text for terminals: a row for each image, then a table of each class.

    The background is left out.
    """
    tables = [_by_image(report)]
    for number, name in enumerate(report.classes[1:], 1):
        summaries = {m: report.by_class[m.key][number] for m in shown_metrics(report)}
        tables.append(_summaries(name, summaries))
    tables.append(_summaries("all classes", {m: report.of_image[m.key] for m in IMAGE_METRICS}))
    return "\n\n".join(tables)


def write_scores_csv(path: str | Path, report: EvaluationReport) -> None:
    """Write all metrics: a row for each image, then mean, its interval, images and overall.

    Columns are named metric_class, and metric where it is of all classes. Undefined is empty.

    Raises:
        OutputError: the file cannot be written.
    """
    titles = [m.key for m in IMAGE_METRICS]
    titles += [f"{m.key}_{name}" for m in CLASS_METRICS for name in report.classes]
    summaries = [report.of_image[m.key] for m in IMAGE_METRICS]
    summaries += [summary for m in CLASS_METRICS for summary in report.by_class[m.key]]
    ends = [summary.interval or (math.nan, math.nan) for summary in summaries]
    rows: list[tuple[str, Sequence[float]]] = [
        *(
            (
                image.name,
                [image.of_image[m.key] for m in IMAGE_METRICS]
                + [value for m in CLASS_METRICS for value in image.by_class[m.key].tolist()],
            )
            for image in report.images
        ),
        ("mean of images", [summary.mean for summary in summaries]),
        ("lower 95 %", [low for low, _ in ends]),
        ("upper 95 %", [high for _, high in ends]),
        ("images", [summary.images for summary in summaries]),
        ("overall", [summary.overall for summary in summaries]),
    ]
    cells = ([name, *("" if math.isnan(v) else v for v in values)] for name, values in rows)
    write_csv(path, ["image", *titles], cells)


def shown_metrics(report: EvaluationReport) -> list[Metric]:
    """Metrics for people: distances in um where the resolution of all images is known."""
    known = all(image.mpp is not None for image in report.images)
    left_out = "_px" if known else "_um"
    return [metric for metric in CLASS_METRICS if not metric.key.endswith(left_out)]


def number(value: float, digits: int) -> str:
    """A score for people; undefined is a dash."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def interval(summary: Summary, digits: int) -> str:
    """The 95 % interval of a mean for people."""
    if summary.interval is None:
        return "-"
    low, high = summary.interval
    return f"{low:.{digits}f} to {high:.{digits}f}"


def _by_image(report: EvaluationReport) -> str:
    keys = _SHOWN_BY_IMAGE if len(report.classes) == 2 else ("dice",)
    shown = [metric for metric in shown_metrics(report) if metric.key in keys]
    columns = [(m, c) for m in shown for c in range(1, len(report.classes))]
    rows = [["image", *(f"{m.title} {report.classes[c]}" for m, c in columns)]]
    if len(report.classes) == 2:
        rows = [["image", *(m.title for m in shown)]]
    for image in report.images:
        scores = (number(float(image.by_class[m.key][c]), m.digits) for m, c in columns)
        rows.append([image.name, *scores])
    return "\n".join(aligned(rows))


def _summaries(title: str, summaries: dict[Metric, Summary]) -> str:
    rows = [[title, "mean", "95 % interval", "images", "overall"]]
    for metric, summary in summaries.items():
        rows.append(
            [
                metric.title,
                number(summary.mean, metric.digits),
                interval(summary, metric.digits),
                str(summary.images),
                number(summary.overall, metric.digits),
            ]
        )
    return "\n".join(aligned(rows))
