"""Metrics of objects, such as nuclei, from a sparse table of which overlap and by how much.

Everything is counted, so that images can be pooled by adding their counts.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from genselfdiff.evaluation.pixel_metrics import ratio

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

_MATCH_IOU = 0.5
"""Objects match above it; no object can then have two partners (Kirillov et al. 2019)."""

_DETECTED_SHARE = 0.5
"""Of a true object's pixels, see ``InstanceCounts.object_f1``; no two predictions can have more."""


class Overlaps(NamedTuple):
    """How objects of truth and prediction overlap; all int64.

    Attributes:
        truth_area, predicted_area: (n,), (m,) pixels of each object.
        truth, predicted: (k,) of each pair that overlaps, places in the areas; by truth, then
            prediction.
        intersection: (k,) pixels that the pair shares.
    """

    truth_area: Int64
    predicted_area: Int64
    truth: Int64
    predicted: Int64
    intersection: Int64

    @property
    def union(self) -> Int64:
        """(k,) pixels of one of the pair or both."""
        areas = self.truth_area[self.truth] + self.predicted_area[self.predicted]
        return areas - self.intersection

    @property
    def iou(self) -> Float64:
        """(k,) intersection over union, above 0."""
        return self.intersection / self.union

    @property
    def largest_of_truth(self) -> Int64:
        """The pair that shares most pixels, of each true object that has any, in their order.

        Of equal ones that of the largest intersection over union, so that no order decides.
        """
        return _best_of_each(self.truth, self.intersection, self.iou)

    @property
    def largest_of_predicted(self) -> Int64:
        """The same of each predicted object."""
        return _best_of_each(self.predicted, self.intersection, self.iou)

    def chosen(self, truth: Bool, predicted: Bool) -> "Overlaps":
        """Only the chosen objects, (n,) and (m,) bool, and the pairs of two of them."""
        pairs = truth[self.truth] & predicted[self.predicted]
        return Overlaps(
            self.truth_area[truth],
            self.predicted_area[predicted],
            (np.cumsum(truth) - 1)[self.truth[pairs]],
            (np.cumsum(predicted) - 1)[self.predicted[pairs]],
            self.intersection[pairs],
        )


def find_overlaps(
    truth: NDArray[np.integer], prediction: NDArray[np.integer], num_truth: int, num_predicted: int
) -> Overlaps:
    """Count the pixels of every object and of every two that overlap, in one pass.

    Args:
        truth, prediction: (H, W) numbers of objects from 1 on, 0 where there is none.
        num_truth, num_predicted: how many objects there are; those without a pixel have area 0.
    """
    both = (truth > 0) & (prediction > 0)
    row, column = truth[both].astype(np.int64) - 1, prediction[both].astype(np.int64) - 1
    pairs, intersection = np.unique(row * num_predicted + column, return_counts=True)
    return Overlaps(
        _areas(truth, num_truth),
        _areas(prediction, num_predicted),
        *np.divmod(pairs, max(num_predicted, 1)),
        intersection.astype(np.int64),
    )


@dataclass(frozen=True)
class InstanceCounts:
    """What the metrics of the objects of one class are made of; counts of images can be added.

    Attributes:
        truth, predicted: objects.
        matched: pairs of them with an intersection over union above 0.5.
        iou_sum: of the matched pairs.
        aji_intersection, aji_union: see ``aji``.
        aji_plus_intersection, aji_plus_union: see ``aji_plus``.
        detected: true objects, see ``object_f1``.
        truth_area, predicted_area: pixels of all objects.
        truth_dice, predicted_dice: sums over the objects, see ``object_dice``.
    """

    truth: int = 0
    predicted: int = 0
    matched: int = 0
    iou_sum: float = 0.0
    aji_intersection: int = 0
    aji_union: int = 0
    aji_plus_intersection: int = 0
    aji_plus_union: int = 0
    detected: int = 0
    truth_area: int = 0
    predicted_area: int = 0
    truth_dice: float = 0.0
    predicted_dice: float = 0.0

    def __add__(self, other: "InstanceCounts") -> "InstanceCounts":
        added = {name: count + getattr(other, name) for name, count in vars(self).items()}
        return InstanceCounts(**added)

    @property
    def aji(self) -> float:
        """Aggregated Jaccard index (Kumar et al. 2017, https://doi.org/10.1109/TMI.2017.2677499).

        Every true object takes the prediction of the largest intersection over union, which
        several may take. Intersections of these pairs, over their unions, true objects that none
        overlaps and predictions that none takes. NaN without any object.
        """
        return _ratio(self.aji_intersection, self.aji_union)

    @property
    def aji_plus(self) -> float:
        """AJI+ (Graham et al. 2019, https://doi.org/10.1016/j.media.2019.101563).

        As ``aji``, but of pairs one to one, such that their intersections over unions have the
        largest sum. NaN without any object.
        """
        return _ratio(self.aji_plus_intersection, self.aji_plus_union)

    @property
    def dq(self) -> float:
        """Detection quality: the F1 score of finding objects at an intersection over union of 0.5.

        Matched pairs over the mean of the numbers of objects; NaN without any object. This and the
        next two: Kirillov et al. 2019, https://doi.org/10.1109/CVPR.2019.00963.
        """
        return _ratio(2 * self.matched, self.truth + self.predicted)

    @property
    def sq(self) -> float:
        """Segmentation quality: mean intersection over union of matched pairs; NaN without one."""
        return _ratio(self.iou_sum, self.matched)

    @property
    def pq(self) -> float:
        """Panoptic quality, ``dq`` times ``sq``; 0 with objects but no match, NaN without any."""
        return _ratio(2 * self.iou_sum, self.truth + self.predicted)

    @property
    def object_f1(self) -> float:
        """F1 of detecting objects, as the GlaS challenge counts; NaN without any object.

        A prediction detects the true object that it shares most pixels with, if it has more than
        half of this one's. This and the next: Sirinukunwattana et al. 2017,
        https://doi.org/10.1016/j.media.2016.08.008.
        """
        return _ratio(2 * self.detected, self.truth + self.predicted)

    @property
    def object_dice(self) -> float:
        """Dice of objects, as the GlaS challenge counts; NaN without any object.

        The mean of two: over true objects, each with the prediction that it shares most pixels
        with, and over predictions with true objects; every object weighs as it has pixels, and
        has 0 if none overlaps it.
        """
        if not self.truth_area or not self.predicted_area:
            return 0.0 if self.truth_area or self.predicted_area else math.nan
        of_truth, of_predicted = (
            self.truth_dice / self.truth_area,
            self.predicted_dice / self.predicted_area,
        )
        return (of_truth + of_predicted) / 2


def count_instances(overlaps: Overlaps) -> InstanceCounts:
    """Count what the metrics are made of."""
    iou = overlaps.iou
    matched = iou > _MATCH_IOU
    best = _best_of_each(overlaps.truth, iou)
    one_to_one = _best_assignment(overlaps.truth, overlaps.predicted, iou)
    of_truth, of_predicted = overlaps.largest_of_truth, overlaps.largest_of_predicted
    true_areas = overlaps.truth_area[overlaps.truth]
    predicted_areas = overlaps.predicted_area[overlaps.predicted]
    dice = 2 * overlaps.intersection / (true_areas + predicted_areas)
    detected = overlaps.intersection[of_predicted] > _DETECTED_SHARE * true_areas[of_predicted]
    return InstanceCounts(
        len(overlaps.truth_area),
        len(overlaps.predicted_area),
        int(matched.sum()),
        float(iou[matched].sum()),
        *_aggregate(overlaps, best),
        *_aggregate(overlaps, one_to_one),
        int(detected.sum()),
        int(overlaps.truth_area.sum()),
        int(overlaps.predicted_area.sum()),
        float((true_areas * dice)[of_truth].sum()),
        float((predicted_areas * dice)[of_predicted].sum()),
    )


def _ratio(part: float, whole: float) -> float:
    return float(ratio(part, whole))


def _areas(numbers: NDArray[np.integer], count: int) -> Int64:
    return np.bincount(numbers.ravel(), minlength=count + 1)[1:].astype(np.int64)


def _aggregate(overlaps: Overlaps, pairs: Int64) -> tuple[int, int]:
    """Intersection and union of the pairs, with all objects that are in none."""
    lonely_truth = np.ones(len(overlaps.truth_area), np.bool_)
    lonely_truth[overlaps.truth[pairs]] = False
    lonely_predicted = np.ones(len(overlaps.predicted_area), np.bool_)
    lonely_predicted[overlaps.predicted[pairs]] = False
    union = (
        overlaps.union[pairs].sum()
        + overlaps.truth_area[lonely_truth].sum()
        + overlaps.predicted_area[lonely_predicted].sum()
    )
    return int(overlaps.intersection[pairs].sum()), int(union)


def _best_of_each(owner: Int64, *scores: Int64 | Float64) -> Int64:
    """The pair of the largest score of each owner that has any.

    Of equal ones, the next of the ``scores`` decides, and then the order of the pairs.
    """
    order = np.lexsort((*(-score for score in reversed(scores)), owner))
    _, first = np.unique(owner[order], return_index=True)
    return order[first]


def _best_assignment(truth: Int64, predicted: Int64, iou: Float64) -> Int64:
    """Pairs in which no object is twice, of the largest sum of ``iou``.

    Objects that overlap, and those that overlap these, form small groups, each of which is solved
    by itself: a table of thousands of objects by thousands would take seconds and much memory.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(iou):
        return np.zeros(0, np.int64)
    rows, columns = int(truth.max()) + 1, int(predicted.max()) + 1
    table = coo_array((iou, (truth, rows + predicted)), shape=(rows + columns, rows + columns))
    _, group = connected_components(table, directed=False)
    order = np.argsort(group[truth], kind="stable")
    starts = np.flatnonzero(np.diff(group[truth[order]], prepend=-1))
    alone = np.diff(np.append(starts, len(order))) == 1
    kept = [order[starts[alone]]]
    ends = np.append(starts[1:], len(order))
    for start, end in zip(starts[~alone].tolist(), ends[~alone].tolist(), strict=True):
        pairs = order[start:end]
        _, row = np.unique(truth[pairs], return_inverse=True)
        _, column = np.unique(predicted[pairs], return_inverse=True)
        shape = row.max() + 1, column.max() + 1
        gain, place = np.zeros(shape), np.full(shape, -1)
        gain[row, column], place[row, column] = iou[pairs], pairs
        chosen = place[linear_sum_assignment(gain, maximize=True)]
        kept.append(chosen[chosen >= 0])
    return np.concatenate(kept)
