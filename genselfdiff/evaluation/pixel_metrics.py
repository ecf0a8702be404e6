"""Pixel metrics of semantic segmentation, from one confusion matrix.

What is undefined is NaN, and never counts as a perfect score.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from genselfdiff.errors import InputError

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]


def confusion(
    labels: NDArray[np.integer],
    prediction: NDArray[np.integer],
    num_classes: int,
    ignore_label: int | None = None,
) -> Int64:
    """(C, C) int64 counts of pixels: row true class, column predicted class.

    Args:
        labels: true classes, 0..num_classes - 1.
        prediction: predicted classes in the same shape.
        num_classes: C.
        ignore_label: pixels with this label are not counted.

    Raises:
        InputError: the shapes differ, or a value is out of range.
    """
    if labels.shape != prediction.shape:
        raise InputError(f"labels are {labels.shape}, but the prediction is {prediction.shape}")
    if ignore_label is not None:
        counted = labels != ignore_label
        labels, prediction = labels[counted], prediction[counted]
    for name, array in (("labels", labels), ("prediction", prediction)):
        if array.size and not (array.min() >= 0 and array.max() < num_classes):
            raise InputError(
                f"{name} hold values {array.min()}..{array.max()}, but there are only classes"
                f" 0..{num_classes - 1}"
            )
    pairs = labels.astype(np.int64).ravel() * num_classes + prediction.ravel()
    counts: Int64 = np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
    return counts


def dice(matrix: Int64) -> Float64:
    """(C,) Dice or F1, 2 |A and B| / (|A| + |B|); NaN for a class neither true nor predicted."""
    both = np.diag(matrix)
    return ratio(2 * both, matrix.sum(0) + matrix.sum(1))


def iou(matrix: Int64) -> Float64:
    """(C,) intersection over union (Jaccard); NaN for a class neither true nor predicted."""
    both = np.diag(matrix)
    return ratio(both, matrix.sum(0) + matrix.sum(1) - both)


def precision(matrix: Int64) -> Float64:
    """(C,) share of the pixels predicted as a class that are of it; NaN with none predicted."""
    return ratio(np.diag(matrix), matrix.sum(0))


def recall(matrix: Int64) -> Float64:
    """(C,) share of the pixels of a class that are predicted as it (sensitivity); NaN with none."""
    return ratio(np.diag(matrix), matrix.sum(1))


def class_accuracy(matrix: Int64) -> Float64:
    """(C,) share of all pixels that are right about a class: of it or not; NaN with no pixel."""
    wrong = matrix.sum(0) + matrix.sum(1) - 2 * np.diag(matrix)
    total = np.full(len(matrix), matrix.sum())
    return ratio(total - wrong, total)


def accuracy(matrix: Int64) -> float:
    """Share of all pixels whose class is right; NaN with no pixel."""
    return float(ratio(np.trace(matrix), matrix.sum()))


def ratio(part: NDArray[Any] | float, whole: NDArray[Any] | float) -> Float64:
    """``part / whole``, of any one shape; NaN where ``whole`` is 0: undefined is not perfect."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
