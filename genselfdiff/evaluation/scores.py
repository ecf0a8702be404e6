"""The scores of images, and what they say together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from genselfdiff.evaluation import pixel_metrics
from genselfdiff.evaluation.authors_metrics import authors_aji_counts
from genselfdiff.evaluation.bootstrap import mean_interval
from genselfdiff.evaluation.instance_metrics import InstanceCounts
from genselfdiff.evaluation.pixel_metrics import Float64, Int64


class Metric(NamedTuple):
    """A metric.

    Attributes:
        key: its name in files.
        title: its name for people, with the unit.
        higher_is_better: else lower values are better.
        digits: after the point, for people.
    """

    key: str
    title: str
    higher_is_better: bool = True
    digits: int = 4


PIXEL_METRICS = (
    Metric("dice", "Dice"),
    Metric("iou", "IoU"),
    Metric("precision", "Precision"),
    Metric("recall", "Recall"),
    Metric("accuracy", "Accuracy"),
)
DISTANCE_METRICS = (
    Metric("hausdorff_px", "Hausdorff, px", False, 1),
    Metric("hausdorff_um", "Hausdorff, um", False, 2),
    Metric("hd95_px", "HD95, px", False, 1),
    Metric("hd95_um", "HD95, um", False, 2),
    Metric("object_hausdorff_px", "Object Hausdorff, px", False, 1),
    Metric("object_hausdorff_um", "Object Hausdorff, um", False, 2),
)
INSTANCE_METRICS = (
    Metric("aji", "AJI"),
    Metric("aji_plus", "AJI+"),
    Metric("pq", "PQ"),
    Metric("sq", "SQ"),
    Metric("dq", "DQ = F1 at 0.5"),
    Metric("object_f1", "Object F1"),
    Metric("object_dice", "Object Dice"),
)
CLASS_METRICS = (*PIXEL_METRICS, *DISTANCE_METRICS, *INSTANCE_METRICS)
"""Of each class; the background has those of pixels only."""

IMAGE_METRICS = (Metric("accuracy", "Accuracy"), Metric("authors_aji", "Authors' AJI"))
"""Of all classes together."""


class Summary(NamedTuple):
    """What the values of a metric in several images say; NaN where nothing is defined.

    Attributes:
        mean: over the images where the metric is defined.
        interval: the 95 % interval of the mean; None of fewer than two images.
        images: how many these are.
        overall: of the pixels, or the objects, of all images pooled; of distances their mean.
    """

    mean: float
    interval: tuple[float, float] | None
    images: int
    overall: float


@dataclass(frozen=True, eq=False)
class ImageScores:
    """What one image's prediction was compared to be.

    Attributes:
        name: the image's file name without its suffix.
        width, height: in pixels.
        mpp: micrometres per pixel; None: unknown.
        matrix: (C, C) confusion in pixels, rows the truth.
        distances: (C, 3) Hausdorff distance, HD95 and that of objects, in pixels; NaN where
            undefined, and for the background.
        instances: C counts of objects; those of the background are empty.
    """

    name: str
    width: int
    height: int
    mpp: float | None
    matrix: Int64
    distances: Float64
    instances: Sequence[InstanceCounts]

    @cached_property
    def by_class(self) -> dict[str, Float64]:
        """(C,) of each of CLASS_METRICS, by key; NaN where it is undefined."""
        pixels = self.distances.T
        um = pixels * (math.nan if self.mpp is None else self.mpp)
        distances = (values for pair in zip(pixels, um, strict=True) for values in pair)
        keys = (metric.key for metric in DISTANCE_METRICS)
        return _of_counts(self.matrix, self.instances) | dict(zip(keys, distances, strict=True))

    @cached_property
    def of_image(self) -> dict[str, float]:
        """Each of IMAGE_METRICS, by key; NaN where it is undefined."""
        return _of_all_classes(self.matrix, authors_aji_counts(self.matrix))

    @property
    def mean_dice(self) -> float:
        """Mean Dice of the classes but the background; NaN where none is there or predicted."""
        return _mean(self.by_class["dice"][1:])


@dataclass(frozen=True, eq=False)
class EvaluationReport:
    """Scores of a model by image.

    Attributes:
        model: its file.
        classes: their names, the background first.
        settings: what else decides the scores, by name; as JSON can hold it.
        images: at least one.
    """

    model: Path
    classes: tuple[str, ...]
    settings: dict[str, object]
    images: tuple[ImageScores, ...]

    @property
    def mpp(self) -> float | None:
        """Micrometres per pixel of the images; None where unknown or not the same for all."""
        found = {image.mpp for image in self.images}
        return found.pop() if len(found) == 1 else None

    @cached_property
    def matrix(self) -> Int64:
        """(C, C) confusion of the pixels of all images."""
        return np.sum([image.matrix for image in self.images], axis=0)

    @cached_property
    def instances(self) -> list[InstanceCounts]:
        """C counts of the objects of all images."""
        of_classes = zip(*(image.instances for image in self.images), strict=True)
        return [sum(counts, InstanceCounts()) for counts in of_classes]

    @cached_property
    def by_class(self) -> dict[str, tuple[Summary, ...]]:
        """C summaries of each of CLASS_METRICS, by key."""
        pooled = _of_counts(self.matrix, self.instances)
        summaries = {}
        for key in (metric.key for metric in CLASS_METRICS):
            columns = np.stack([image.by_class[key] for image in self.images], axis=1)
            overall = pooled.get(key, [_mean(column) for column in columns])
            summaries[key] = tuple(map(_summarise, columns, overall))
        return summaries

    @cached_property
    def of_image(self) -> dict[str, Summary]:
        """A summary of each of IMAGE_METRICS, by key."""
        counts = sum((authors_aji_counts(i.matrix) for i in self.images), InstanceCounts())
        return {
            key: _summarise(np.array([image.of_image[key] for image in self.images]), overall)
            for key, overall in _of_all_classes(self.matrix, counts).items()
        }


def _of_counts(matrix: Int64, instances: Sequence[InstanceCounts]) -> dict[str, Float64]:
    """(C,) of each metric of pixels or objects, of one image or pooled."""
    pixels = (
        pixel_metrics.dice(matrix),
        pixel_metrics.iou(matrix),
        pixel_metrics.precision(matrix),
        pixel_metrics.recall(matrix),
        pixel_metrics.class_accuracy(matrix),
    )
    objects = np.array(
        [(c.aji, c.aji_plus, c.pq, c.sq, c.dq, c.object_f1, c.object_dice) for c in instances]
    ).T
    keys = (metric.key for metric in (*PIXEL_METRICS, *INSTANCE_METRICS))
    return dict(zip(keys, (*pixels, *objects), strict=True))


def _of_all_classes(matrix: Int64, class_maps: InstanceCounts) -> dict[str, float]:
    return {"accuracy": pixel_metrics.accuracy(matrix), "authors_aji": class_maps.aji}


def _summarise(values: Float64, overall: float) -> Summary:
    defined = values[np.isfinite(values)]
    return Summary(_mean(defined), mean_interval(defined), len(defined), float(overall))


def _mean(values: Float64) -> float:
    """Of what is defined."""
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if len(defined) else math.nan
