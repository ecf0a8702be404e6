"""Comparing one image's prediction with its truth."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from genselfdiff.evaluation.distances import boundary_distances
from genselfdiff.evaluation.instance_metrics import InstanceCounts, count_instances, find_overlaps
from genselfdiff.evaluation.object_distances import ChosenObjects, object_hausdorff
from genselfdiff.evaluation.pixel_metrics import confusion
from genselfdiff.evaluation.scores import ImageScores
from genselfdiff.objects import (
    NumberedObjects,
    choose_splitter,
    least_area,
    number_objects,
    windows_of,
)

Uint8 = NDArray[np.uint8]


@dataclass(frozen=True)
class ObjectOptions:
    """How the objects of a prediction are found, as by ``gsd objects``.

    Attributes:
        instances: take objects apart that only touch; None: where their cores are known, or
            ``seed_distance`` is given.
        seed_distance: take them apart where they are thin, not by cores; in um, or in pixels
            without mpp; None: the usual, where cores are not known.
        min_area: in um2, or in pixels without mpp; smaller holes are filled, then smaller objects
            left out. None: see ``write_objects``.
    """

    instances: bool | None = None
    seed_distance: float | None = None
    min_area: float | None = None


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of an image.

    Attributes:
        labels: (H, W) classes, or ``ignored``.
        ignored: the label of pixels that are not counted.
        numbers: (H, W) numbers of the objects, 0 where none is; None: what hangs together of a
            class by the sides of pixels. Of an object with several classes, each class is an
            object.
    """

    labels: Uint8
    ignored: int | None = None
    numbers: NDArray[np.integer] | None = None


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of an image.

    Attributes:
        labels: (H, W) classes.
        cores: (H, W) where cores of objects are, if the model tells.
    """

    labels: Uint8
    cores: NDArray[np.bool_] | None = None


USUAL = ObjectOptions()
"""Objects are what hangs together or has a core of its own; of the latter no specks."""


class ImageComparison(NamedTuple):
    """An image's scores, and its true and predicted objects; of these the ignored are left out."""

    scores: ImageScores
    truth: NumberedObjects
    prediction: NumberedObjects


def score_image(
    name: str,
    truth: Truth,
    prediction: Prediction,
    num_classes: int,
    *,
    mpp: float | None = None,
    objects: ObjectOptions = USUAL,
) -> ImageComparison:
    """Compare a prediction with the truth.

    Ignored pixels are neither truth nor prediction: they are in no count, and objects and masks end
    there.

    Args:
        name: of the image.
        truth: what is known of it.
        prediction: what the model says, of the same size.
        num_classes: C, the background among them.
        mpp: micrometres per pixel.
        objects: how the prediction's are found.

    Raises:
        InputError: the shapes differ, a class is out of range, or an option.
    """
    ignored = truth.ignored
    matrix = confusion(truth.labels, prediction.labels, num_classes, ignored)
    counted = np.ones(truth.labels.shape, np.bool_) if ignored is None else truth.labels != ignored
    found = _predicted_objects(prediction, mpp, objects)
    found = found._replace(numbers=np.where(counted, found.numbers, 0))
    true_classes = np.where(counted, truth.labels, 0)
    predicted_classes = np.where(counted, prediction.labels, 0)
    true = (
        number_objects(true_classes)
        if truth.numbers is None
        else _renumbered(truth.numbers, true_classes, num_classes)
    )
    overlaps = find_overlaps(
        true.numbers, found.numbers, len(true.classes) - 1, len(found.classes) - 1
    )
    # An object that lies in ignored pixels only is none.
    seen = overlaps.predicted_area > 0
    distances, instances = [(math.nan, math.nan, math.nan)], [InstanceCounts()]
    for c in range(1, num_classes):
        chosen = true.classes[1:] == c, (found.classes[1:] == c) & seen
        of_class = overlaps.chosen(*chosen)
        instances.append(count_instances(of_class))
        of_objects = object_hausdorff(
            ChosenObjects(true.numbers, np.flatnonzero(chosen[0]) + 1),
            ChosenObjects(found.numbers, np.flatnonzero(chosen[1]) + 1),
            of_class,
        )
        of_masks = boundary_distances(true_classes == c, predicted_classes == c)
        distances.append((*of_masks, of_objects))
    height, width = truth.labels.shape
    scores = ImageScores(name, width, height, mpp, matrix, np.array(distances), instances)
    return ImageComparison(scores, true, found)


def count_all(
    truth: NDArray[np.integer], prediction: Prediction, mpp: float | None
) -> InstanceCounts:
    """Compare the objects of a prediction of one class with the true ones.

    Args:
        truth: (H, W) numbers of the true objects, 0 where none is.
        prediction: its labels 1 in objects, 0 beside them.
        mpp: micrometres per pixel.
    """
    true = _renumbered(truth, (truth != 0).astype(np.uint8), 2)
    found = _predicted_objects(prediction, mpp, USUAL)
    counts = (len(objects.classes) - 1 for objects in (true, found))
    return count_instances(find_overlaps(true.numbers, found.numbers, *counts))


def _predicted_objects(
    prediction: Prediction, mpp: float | None, options: ObjectOptions
) -> NumberedObjects:
    known = None if prediction.cores is None else windows_of(prediction.cores)
    splitter = choose_splitter(
        options.instances, options.seed_distance, mpp, options.min_area, known
    )
    least = least_area(options.min_area, mpp, apart=splitter is not None)
    return number_objects(prediction.labels, splitter=splitter, min_area=least / (mpp or 1) ** 2)


def _renumbered(numbers: NDArray[np.integer], classes: Uint8, num_classes: int) -> NumberedObjects:
    """Objects of any numbers as 1, 2, ..., each of one class; none where the class is 0."""
    inside = (numbers != 0) & (classes != 0)
    keys = numbers[inside].astype(np.int64) * num_classes + classes[inside]
    found, place = np.unique(keys, return_inverse=True)
    renumbered = np.zeros(numbers.shape, np.int32)
    renumbered[inside] = place + 1
    return NumberedObjects(renumbered, np.append(0, found % num_classes))
