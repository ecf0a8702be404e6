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
    IMAGE_METRICS,
    EvaluationReport,
    ImageScores,
    Metric,
    Summary,
)
from genselfdiff.files import write_text

_FORMAT = 1
_KIND = "gsd evaluation"


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
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_evaluation(path: str | Path) -> EvaluationReport:
    """Read what ``write_evaluation`` has written; summaries are made anew, and are the same.

    Raises:
        InputError: the file cannot be read, or is not one of ours or from a later version.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {one_line(error)}") from error
    except ValueError as error:
        raise _foreign(path, "it is no JSON") from error
    if not isinstance(content, dict) or content.get("kind") != _KIND:
        raise _foreign(path, "it holds something else")
    if content.get("format") != _FORMAT:
        raise InputError(
            f"{path}: has format {content.get('format')}, this version reads {_FORMAT}: evaluate"
            " again, or use the version that wrote it"
        )
    try:
        classes = tuple(map(str, content["classes"]))
        images = tuple(_image(entry, classes) for entry in content["images"])
        if not images:
            raise ValueError("no image")
        return EvaluationReport(Path(content["model"]), classes, dict(content["settings"]), images)
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
    matrix = np.array(entry["confusion"], np.int64)
    if matrix.shape != (len(classes), len(classes)):
        raise ValueError(f"confusion of {entry['image']} does not fit {len(classes)} classes")
    distances = [
        [_or_nan(entry["by_class"][name][key]) for key in ("hausdorff_px", "hd95_px")]
        for name in classes
    ]
    objects = [InstanceCounts(**entry["objects"][name]) for name in classes[1:]]
    return ImageScores(
        str(entry["image"]),
        int(entry["width"]),
        int(entry["height"]),
        None if entry["mpp"] is None else float(entry["mpp"]),
        matrix,
        np.array(distances, np.float64),
        [InstanceCounts(), *objects],
    )


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
    return math.nan if value is None else float(value)
