"""A page about an evaluation: summaries, confusion, and the images from worst to best."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from genselfdiff.evaluation.case_pictures import worst_first
from genselfdiff.evaluation.outlines_picture import (
    BOTH_COLOUR,
    PREDICTION_COLOUR,
    TRUTH_COLOUR,
)
from genselfdiff.evaluation.scores import (
    IMAGE_METRICS,
    EvaluationReport,
    ImageScores,
    Metric,
    Summary,
)
from genselfdiff.evaluation.tables import interval, number, shown_metrics
from genselfdiff.files import write_text
from genselfdiff.pages import css_colour, definitions, escape, footer, style, table

_IN_LIST = ("dice", "hd95_um", "hd95_px", "pq")
_COUNTS = (
    ("True objects", "truth"),
    ("Predicted objects", "predicted"),
    ("Matched, IoU above 0.5", "matched"),
)
_LEGEND = (
    (TRUTH_COLOUR, "Outlines: truth"),
    (PREDICTION_COLOUR, "prediction"),
    (BOTH_COLOUR, "both"),
)


def write_page(path: str | Path, report: EvaluationReport, pictures: Mapping[str, str]) -> None:
    """Write one HTML file that needs no other, for screens of any width and for paper.

    Args:
        path: the file to write.
        report: what the page tells.
        pictures: of images by name, as addresses; see ``CasePictures``.

    Raises:
        OutputError: the file cannot be written.
    """
    images = sorted(report.images, key=worst_first)
    template = Template((files(__package__) / "page.html").read_text(encoding="utf-8"))
    page = template.substitute(
        title=f"Evaluation of {escape(report.model.name)}",  # pages are passed on: no folders
        lead=escape(_lead(report)),
        style=style(),
        summaries="\n".join(_summaries(report)),
        together=_summary("All classes", [(m, report.of_image[m.key]) for m in IMAGE_METRICS]),
        confusion=_confusion(report),
        cases=_list(report, images, pictures),
        legend=_legend(report, pictures),
        pictures="\n".join(
            _case(report, place, image, len(images), pictures[image.name])
            for place, image in enumerate(images, 1)
            if image.name in pictures
        ),
        settings=definitions(
            {name.replace("_", " "): _told(value) for name, value in report.settings.items()}
        ),
        footer=footer(),
    )
    write_text(path, page)


def _lead(report: EvaluationReport) -> str:
    images = f"{len(report.images)} image{'' if len(report.images) == 1 else 's'}"
    size = f"{report.matrix.sum() / 1e6:.3g} million pixels"
    mpp = "" if report.mpp is None else f" of {report.mpp:.4g} \u00b5m"
    return f"{images}, {size}{mpp}"


def _told(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def _title(metric: Metric) -> str:
    return escape(metric.title.replace(" um", " \u00b5m"))


def _summaries(report: EvaluationReport) -> list[str]:
    parts = []
    for c, name in enumerate(report.classes[1:], 1):
        by_metric = [(m, report.by_class[m.key][c]) for m in shown_metrics(report)]
        parts.append(_summary(name, by_metric))
    return parts


def _summary(title: str, by_metric: Sequence[tuple[Metric, Summary]]) -> str:
    rows = [
        (
            _title(metric),
            f"<b>{number(summary.mean, metric.digits)}</b>",
            interval(summary, metric.digits),
            number(summary.overall, metric.digits),
            str(summary.images),
        )
        for metric, summary in by_metric
    ]
    head = ["", "Mean", "95 % interval", "Overall", "Images"]
    return (
        f'<section><h2>{escape(title)}</h2><div class="scroll">{table(head, rows)}</div></section>'
    )


def _confusion(report: EvaluationReport) -> str:
    lines = []
    for name, row in zip(report.classes, report.matrix.tolist(), strict=True):
        total = sum(row)
        cells = "".join(
            f'<td style="--share:{count / max(total, 1):.3f}">'
            f"{100 * count / total:.1f} %<small>{count:,}</small></td>"
            if total
            else "<td>-</td>"
            for count in row
        )
        lines.append(f"<tr><td>{escape(name)}</td>{cells}<td>{total:,}</td></tr>")
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", *report.classes, "Pixels"))
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def _list(
    report: EvaluationReport, images: Sequence[ImageScores], pictures: Mapping[str, str]
) -> str:
    shown = [metric for metric in shown_metrics(report) if metric.key in _IN_LIST]
    columns = [(metric, c) for c in range(1, len(report.classes)) for metric in shown]
    head = ["", *(f"{_title(m)}<br>{escape(report.classes[c])}" for m, c in columns)]
    rows = []
    for place, image in enumerate(images, 1):
        name = escape(image.name)
        link = f'<a href="#image{place}">{name}</a>' if image.name in pictures else name
        rows.append(
            [link, *(number(float(image.by_class[m.key][c]), m.digits) for m, c in columns)]
        )
    return table(head, rows)


def _case(
    report: EvaluationReport, place: int, image: ImageScores, count: int, picture: str
) -> str:
    classes = report.classes[1:]
    rows = [
        [
            _title(metric),
            *(number(float(value), metric.digits) for value in image.by_class[metric.key][1:]),
        ]
        for metric in shown_metrics(report)
    ]
    for title, kind in _COUNTS:
        rows.append([title, *(f"{getattr(counts, kind):,}" for counts in image.instances[1:])])
    name = escape(image.name)
    return (
        f'<section id="image{place}"><h3>{name} <span>{place} of {count}</span></h3>'
        '<div class="case"><figure><label><input type="checkbox" aria-label="Enlarge">'
        f'<img src="{picture}" loading="lazy" alt="Outlines over {name}"></label></figure>'
        f'<div class="scroll">{table(["", *map(escape, classes)], rows)}</div></div></section>'
    )


def _legend(report: EvaluationReport, pictures: Mapping[str, str]) -> str:
    parts = [
        f'<span><span class="swatch" style="background:{css_colour(colour)}"></span>{name}</span>'
        for colour, name in _LEGEND
    ]
    if report.settings.get("ignore_label") is not None:
        parts.append("<span>grey: not counted</span>")
    parts.append("<span>Click a picture to enlarge it.</span>")
    if len(pictures) < len(report.images):
        parts.append("<span>Of many images, the worst and the best have pictures.</span>")
    return "".join(parts)
