"""Pixel metrics of semantic segmentation, from one confusion matrix."""

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
    """(C,) Dice, 2 |A and B| / (|A| + |B|), of each class; 1.0 where it is in neither."""
    both = np.diag(matrix)
    return _ratio(2 * both, matrix.sum(0) + matrix.sum(1))


def iou(matrix: Int64) -> Float64:
    """(C,) intersection over union of each class; 1.0 where it is in neither."""
    both = np.diag(matrix)
    return _ratio(both, matrix.sum(0) + matrix.sum(1) - both)


def _ratio(part: Int64, whole: Int64) -> Float64:
    return np.divide(part, whole, out=np.ones(len(part)), where=whole > 0)
