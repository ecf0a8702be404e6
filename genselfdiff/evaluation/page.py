"""A page about an evaluation: summaries, confusion, and the images from worst to best."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

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
from genselfdiff.pages import css_colour, render
from genselfdiff.text import counted

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

_SETTINGS = {
    "foreground": "Every mask value but 0 is one class",
    "ignore_label": "Mask value that is not counted",
    "true_objects": "True objects",
    "instances": "Touching objects taken apart",
    "seed_distance": "Least distance of their middles",
    "min_area": "Smallest object",
    "device": "Computed on",
    "precision": "Numbers",
}
"""What settings are called; those of a newer version keep their own names."""

_UNITS = {"seed_distance": ("\u00b5m", "px"), "min_area": ("\u00b5m\u00b2", "px")}
"""Of settings: where the resolution of all images is known, and elsewhere."""

_VALUES = {
    True: "yes",
    False: "no",
    None: "-",
    "numbers": "as the masks number them",
    "connected": "what hangs together",
}


def write_page(path: str | Path, report: EvaluationReport, pictures: Mapping[str, str]) -> None:
    """Write one HTML file that needs no other, for screens of any width and for paper.

    Args:
        path: the file to write.
        report: what the page tells.
        pictures: of images by name, as addresses; see ``CasePictures``.

    Raises:
        OutputError: the file cannot be written.
    """
    metrics = shown_metrics(report)
    listed = [
        (metric, c)
        for c in range(1, len(report.classes))
        for metric in metrics
        if metric.key in _IN_LIST
    ]
    page = render(
        "evaluation.html",
        title=f"Evaluation of {report.model.name}",  # pages are passed on: no folders
        lead=_lead(report),
        names=[*report.classes],
        summaries=[
            (name, _summary((metric, report.by_class[metric.key][c]) for metric in metrics))
            for c, name in enumerate(report.classes[1:], 1)
        ],
        together=_summary((metric, report.of_image[metric.key]) for metric in IMAGE_METRICS),
        confusion=[*zip(report.classes, report.matrix.tolist(), strict=True)],
        columns=[(_title(metric), report.classes[c]) for metric, c in listed],
        images=[
            {
                "place": place,
                "name": image.name,
                "picture": pictures.get(image.name),
                "listed": [_score(image, metric, c) for metric, c in listed],
                "rows": [*_rows(report, image, metrics)],
            }
            for place, image in enumerate(sorted(report.images, key=worst_first), 1)
        ],
        legend=[(css_colour(colour), name) for colour, name in _LEGEND],
        notes=[*_notes(report, pictures)],
        settings={
            _setting_name(name, report): _told(value) for name, value in report.settings.items()
        },
    )
    write_text(path, page)


def _lead(report: EvaluationReport) -> str:
    images = counted(len(report.images), "image")
    size = f"{report.matrix.sum() / 1e6:.3g} million pixels"
    mpp = "" if report.mpp is None else f" of {report.mpp:.4g} \u00b5m"
    return f"{images}, {size}{mpp}"


def _setting_name(name: str, report: EvaluationReport) -> str:
    told = _SETTINGS.get(name, name.replace("_", " "))
    if name not in _UNITS:
        return told
    known, unknown = _UNITS[name]
    are_known = {image.mpp is not None for image in report.images}
    if are_known == {True, False}:
        return f"{told}, {known}; {unknown} without resolution"
    return f"{told}, {known if True in are_known else unknown}"


def _told(value: object) -> str:
    if isinstance(value, bool | str | None):
        return _VALUES.get(value, str(value))
    return str(value)


def _title(metric: Metric) -> str:
    return metric.title.replace(" um", " \u00b5m")


def _score(image: ImageScores, metric: Metric, c: int) -> str:
    return number(float(image.by_class[metric.key][c]), metric.digits)


def _summary(by_metric: Iterable[tuple[Metric, Summary]]) -> list[dict[str, str]]:
    return [
        {
            "title": _title(metric),
            "mean": number(summary.mean, metric.digits),
            "interval": interval(summary, metric.digits),
            "overall": number(summary.overall, metric.digits),
            "images": str(summary.images),
        }
        for metric, summary in by_metric
    ]


def _rows(
    report: EvaluationReport, image: ImageScores, metrics: Sequence[Metric]
) -> Iterator[tuple[str, list[str]]]:
    """What the scores of an image are called, and those of each class but the background."""
    classes = range(1, len(report.classes))
    for metric in metrics:
        yield _title(metric), [_score(image, metric, c) for c in classes]
    for title, kind in _COUNTS:
        yield title, [f"{getattr(image.instances[c], kind):,}" for c in classes]


def _notes(report: EvaluationReport, pictures: Mapping[str, str]) -> Iterator[str]:
    if report.settings.get("ignore_label") is not None:
        yield "grey: not counted"
    yield "Click a picture to enlarge it."
    if len(pictures) < len(report.images):
        yield "Of many images, the worst and the best have pictures."
