"""Scores as JSON: written by ``gsd evaluate``, read to compare models."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genselfdiff.errors import InputError, one_line
from genselfdiff.evaluation.instance_metrics import InstanceCounts
from genselfdiff.evaluation.scores import (
    CLASS_METRICS,
    DISTANCE_METRICS,
    IMAGE_METRICS,
    EvaluationReport,
    ImageScores,
    Metric,
    Summary,
)
from genselfdiff.files import write_text
from genselfdiff.input_files import read_json

_FORMAT = 2
_KIND = "gsd evaluation"

_LARGEST_COUNT = 2**40
"""Of pixels or objects of an image; sums over many images stay within 64 bits."""


def write_evaluation(path: str | Path, report: EvaluationReport) -> None:
    """Write everything that is known of an evaluation; undefined metrics are null.

    Raises:
        OutputError: the file cannot be written.
    """
    content = {
        "format": _FORMAT,
        "kind": _KIND,
        "model": str(report.model),
        "classes": list(report.classes),
        "mpp": report.mpp,
        "settings": report.settings,
        "metrics": {
            "by_class": _described(CLASS_METRICS),
            "of_image": _described(IMAGE_METRICS),
        },
        "images": [_image_entry(image, report.classes) for image in report.images],
        "summary": {
            "by_class": {
                name: {m.key: _summary_entry(report.by_class[m.key][c]) for m in CLASS_METRICS}
                for c, name in enumerate(report.classes)
            },
            "of_image": {m.key: _summary_entry(report.of_image[m.key]) for m in IMAGE_METRICS},
        },
        "confusion": report.matrix.tolist(),
    }
    # In ASCII: names of files can hold bytes that are no UTF-8.
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_evaluation(path: str | Path) -> EvaluationReport:
    """Read what ``write_evaluation`` has written; summaries are made anew, and are the same.

    Raises:
        InputError: the file cannot be read, or is not one of ours or from a later version.
    """
    path = Path(path)
    content = read_json(path)
    if not isinstance(content, dict) or content.get("kind") != _KIND:
        raise _foreign(path, "it holds something else")
    if content.get("format") != _FORMAT:
        raise InputError(
            f"{path}: has format {content.get('format')}, this version reads {_FORMAT}: evaluate"
            " again, or use the version that wrote it"
        )
    try:
        classes = tuple(_text(name) for name in content["classes"])
        images = tuple(_image(entry, classes) for entry in content["images"])
        if not images:
            raise ValueError("no image")
        for what, names in (("class", classes), ("image", [image.name for image in images])):
            if len(set(names)) != len(names):
                raise ValueError(f"two of one {what}")
        model = Path(_text(content["model"]))
        return EvaluationReport(model, classes, dict(content["settings"]), images)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _foreign(path, f"it is damaged: {type(error).__name__} {one_line(error)}") from error


def _foreign(path: Path, why: str) -> InputError:
    return InputError(
        f"{path}: is no evaluation ({why}): give a file that 'gsd evaluate --json' has written"
    )


def _described(metrics: Sequence[Metric]) -> dict[str, dict[str, object]]:
    return {m.key: {"title": m.title, "higher_is_better": m.higher_is_better} for m in metrics}


def _image_entry(image: ImageScores, classes: Sequence[str]) -> dict[str, Any]:
    return {
        "image": image.name,
        "width": image.width,
        "height": image.height,
        "mpp": image.mpp,
        "by_class": {
            name: {m.key: _or_null(float(image.by_class[m.key][c])) for m in CLASS_METRICS}
            for c, name in enumerate(classes)
        },
        "of_image": {m.key: _or_null(image.of_image[m.key]) for m in IMAGE_METRICS},
        "objects": {
            name: vars(counts)
            for name, counts in list(zip(classes, image.instances, strict=True))[1:]
        },
        "confusion": image.matrix.tolist(),
    }


def _image(entry: Mapping[str, Any], classes: Sequence[str]) -> ImageScores:
    """The scores of an image, from what they are made of."""
    matrix = np.array([[_count(pixels) for pixels in row] for row in entry["confusion"]], np.int64)
    if matrix.shape != (len(classes), len(classes)):
        raise ValueError(f"confusion of {entry['image']} does not fit {len(classes)} classes")
    in_pixels = [m.key for m in DISTANCE_METRICS if m.key.endswith("_px")]
    distances = [[_or_nan(entry["by_class"][name][key]) for key in in_pixels] for name in classes]
    mpp = None if entry["mpp"] is None else _number(entry["mpp"])
    if mpp == 0:
        raise ValueError("mpp is 0")
    return ImageScores(
        _text(entry["image"]),
        _count(entry["width"]),
        _count(entry["height"]),
        mpp,
        matrix,
        np.array(distances, np.float64),
        [InstanceCounts(), *(_objects(entry["objects"][name]) for name in classes[1:])],
    )


def _objects(entry: Mapping[str, Any]) -> InstanceCounts:
    fields = vars(InstanceCounts())
    if entry.keys() != fields.keys():
        raise ValueError(f"counts of objects are not {', '.join(fields)}")
    counts: dict[str, Any] = {
        key: _number(entry[key]) if isinstance(default, float) else _count(entry[key])
        for key, default in fields.items()
    }
    return InstanceCounts(**counts)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value} is no text")
    return value


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _LARGEST_COUNT:
        raise ValueError(f"{value} is no count")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"{value} is no number from 0 on")
    return float(value)


def _summary_entry(summary: Summary) -> dict[str, object]:
    return {
        "mean": _or_null(summary.mean),
        "interval": None if summary.interval is None else list(summary.interval),
        "images": summary.images,
        "overall": _or_null(summary.overall),
    }


def _or_null(value: float) -> float | None:
    return None if math.isnan(value) else value


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else _number(value)
