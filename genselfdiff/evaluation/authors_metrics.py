"""Metrics as the authors of the method computed them, only to be compared with their figures."""

from genselfdiff.evaluation.instance_metrics import InstanceCounts, Overlaps, count_instances
from genselfdiff.evaluation.pixel_metrics import Int64


def authors_aji_counts(matrix: Int64) -> InstanceCounts:
    """Counts whose ``aji`` is the authors' "AJI": that of class maps, each class as one object.

    All pixels of a class other than the background are taken for one object; so there are at most
    C - 1 of them in truth and prediction, and touching, missed or invented nuclei count by their
    pixels alone. With one class it is that class's intersection over union.

    Args:
        matrix: (C, C) confusion of one image, rows the truth, class 0 the background.
    """
    objects = matrix[1:, 1:]
    truth, predicted = objects.nonzero()
    overlaps = Overlaps(
        matrix.sum(1)[1:], matrix.sum(0)[1:], truth, predicted, objects[truth, predicted]
    )
    return count_instances(overlaps.chosen(overlaps.truth_area > 0, overlaps.predicted_area > 0))
