"""How far objects lie from those that they should be, as the GlaS challenge counts.

Sirinukunwattana et al. 2017, https://doi.org/10.1016/j.media.2016.08.008.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from genselfdiff.evaluation.distances import Bool
from genselfdiff.evaluation.instance_metrics import Overlaps

Int64 = NDArray[np.int64]


class ChosenObjects(NamedTuple):
    """Some of the objects of an image.

    Attributes:
        numbers: (H, W) numbers of objects, 0 where there is none.
        chosen: (n,) the numbers that count.
    """

    numbers: NDArray[np.integer]
    chosen: Int64


def object_hausdorff(truth: ChosenObjects, prediction: ChosenObjects, overlaps: Overlaps) -> float:
    """Mean Hausdorff distance in pixels between objects and their partners.

    The mean of two: over true objects, each with the prediction that it shares most pixels with,
    and over predictions with true objects. Where none overlaps an object, the one of the least
    distance is its partner. Every object weighs as it has pixels. Of a pair of objects this is the
    largest distance from a pixel of one to the nearest of the other, between the pixels' middles.

    Args:
        truth, prediction: all objects of a class, of images of one size.
        overlaps: of these objects.

    Returns:
        NaN without any object; the image's diagonal, sqrt(H^2 + W^2), where only one of both has
        any: no two pixels lie farther apart.
    """
    if not len(truth.chosen) or not len(prediction.chosen):
        alone = len(truth.chosen) or len(prediction.chosen)
        return math.hypot(*truth.numbers.shape) if alone else math.nan
    pairs = _Pairs(truth, prediction)
    of_truth, of_predicted = overlaps.largest_of_truth, overlaps.largest_of_predicted
    partner_of_truth = np.full(len(truth.chosen), -1)
    partner_of_truth[overlaps.truth[of_truth]] = overlaps.predicted[of_truth]
    partner_of_predicted = np.full(len(prediction.chosen), -1)
    partner_of_predicted[overlaps.predicted[of_predicted]] = overlaps.truth[of_predicted]
    from_truth = [
        pairs.distance(i, j) if j >= 0 else pairs.nearest_of_truth(i)
        for i, j in enumerate(partner_of_truth.tolist())
    ]
    from_predicted = [
        pairs.distance(i, j) if i >= 0 else pairs.nearest_of_predicted(j)
        for j, i in enumerate(partner_of_predicted.tolist())
    ]
    means = (
        np.average(from_truth, weights=overlaps.truth_area),
        np.average(from_predicted, weights=overlaps.predicted_area),
    )
    return float(np.mean(means))


class _Pairs:
    """Distances between true and predicted objects, by their places among the chosen."""

    def __init__(self, truth: ChosenObjects, prediction: ChosenObjects) -> None:
        self._truth, self._prediction = truth, prediction
        self._boxes = _boxes(truth), _boxes(prediction)
        self._known: dict[tuple[int, int], float] = {}

    def distance(self, i: int, j: int) -> float:
        """Hausdorff distance of true object i and predicted object j."""
        if (i, j) not in self._known:
            both = np.stack([self._boxes[0][i], self._boxes[1][j]])
            (top, left), (bottom, right) = both[:, :2].min(axis=0), both[:, 2:].max(axis=0)
            true = self._truth.numbers[top:bottom, left:right] == self._truth.chosen[i]
            found = self._prediction.numbers[top:bottom, left:right] == self._prediction.chosen[j]
            self._known[i, j] = max(_farthest(true, found), _farthest(found, true))
        return self._known[i, j]

    def nearest_of_truth(self, i: int) -> float:
        """The least distance of true object i to any predicted one."""
        bounds = np.abs(self._boxes[1] - self._boxes[0][i]).max(axis=1)
        return self._least(bounds, [(i, j) for j in range(len(bounds))])

    def nearest_of_predicted(self, j: int) -> float:
        """The least distance of predicted object j to any true one."""
        bounds = np.abs(self._boxes[0] - self._boxes[1][j]).max(axis=1)
        return self._least(bounds, [(i, j) for i in range(len(bounds))])

    def _least(self, bounds: Int64, pairs: list[tuple[int, int]]) -> float:
        """Of a few pairs: no distance is below that of the sides of the boxes."""
        least = math.inf
        for place in np.argsort(bounds).tolist():
            if bounds[place] >= least:
                break
            least = min(least, self.distance(*pairs[place]))
        return least


def _farthest(sources: Bool, targets: Bool) -> float:
    """The largest distance of a pixel of ``sources`` to the nearest of ``targets``."""
    from scipy.ndimage import distance_transform_edt

    outside = sources & ~targets
    return float(distance_transform_edt(~targets)[outside].max()) if outside.any() else 0.0


def _boxes(objects: ChosenObjects) -> Int64:
    """(n, 4) top, left, bottom, right of each; the last two are outside."""
    from scipy.ndimage import find_objects

    found = find_objects(objects.numbers)
    slices = (found[number - 1] for number in objects.chosen.tolist())
    return np.array([(y.start, x.start, y.stop, x.stop) for y, x in slices], np.int64)
