import math

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from genselfdiff.evaluation.instance_metrics import find_overlaps
from genselfdiff.evaluation.object_distances import ChosenObjects, object_hausdorff

SHAPE = 60, 80


def ovals(seed: int, count: int = 9, hollow: float = 0.0) -> np.ndarray:
    """Numbered objects; later ones cut earlier ones, and some come out hollow."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    numbers = np.zeros(SHAPE, np.int32)
    for number in range(1, count + 1):
        across = np.hypot(
            (y - random.uniform(0, SHAPE[0])) / random.uniform(2, 9),
            (x - random.uniform(0, SHAPE[1])) / random.uniform(2, 9),
        )
        numbers[(across < 1) & (across >= hollow * random.integers(0, 2))] = number
    return np.unique(numbers, return_inverse=True)[1].reshape(SHAPE).astype(np.int32)


def of_all(truth: np.ndarray, prediction: np.ndarray) -> float:
    chosen = [ChosenObjects(side, np.arange(1, side.max() + 1)) for side in (truth, prediction)]
    overlaps = find_overlaps(truth, prediction, int(truth.max()), int(prediction.max()))
    return object_hausdorff(*chosen, overlaps)


def as_published(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Equations 6 and 7 of Sirinukunwattana et al. 2017, between all pixels of all objects."""
    sides = [
        [np.argwhere(side == number) for number in range(1, side.max() + 1)]
        for side in (truth, prediction)
    ]
    means = []
    for own, others in (sides, sides[::-1]):
        distances = []
        for a in own:
            shared = [len(set(map(tuple, a)) & set(map(tuple, b))) for b in others]
            apart = [cdist(a, b) for b in others]
            hausdorff = [max(d.min(0).max(), d.min(1).max()) for d in apart]
            distances.append(hausdorff[int(np.argmax(shared))] if any(shared) else min(hausdorff))
        means.append(np.average(distances, weights=[len(a) for a in own]))
    return float(np.mean(means))


@pytest.mark.parametrize("hollow", [0.0, 0.7])
@pytest.mark.parametrize("seed", range(12))
def test_against_its_definition(seed, hollow):
    truth, prediction = ovals(seed, hollow=hollow), ovals(seed + 100, count=6, hollow=hollow)
    assert of_all(truth, prediction) == pytest.approx(as_published(truth, prediction))


def test_the_fields_have_objects_that_none_overlaps():
    lonely = 0
    for seed in range(12):
        truth, prediction = ovals(seed), ovals(seed + 100, count=6)
        lonely += truth.max() - len(set(truth[prediction > 0].tolist()) - {0})
    assert lonely > 12


def test_the_middle_of_an_object_can_be_the_farthest_from_a_ring():
    truth, prediction = np.zeros((2, 41, 41), np.int32)
    y, x = np.mgrid[:41, :41] - 20
    truth[np.hypot(y, x) <= 15] = 1
    prediction[(np.hypot(y, x) <= 15) & (np.hypot(y, x) > 12.5)] = 1
    assert of_all(truth, prediction) == np.hypot(y, x)[prediction > 0].min()


def test_only_the_chosen_count():
    truth, prediction = ovals(1), ovals(1)
    truth[prediction == 2] = 0
    prediction[prediction == 3] = 0
    numbers = sorted(set(truth[truth > 0].tolist()) & set(prediction[prediction > 0].tolist()))
    chosen = np.array(numbers)
    overlaps = find_overlaps(truth, prediction, int(truth.max()), int(prediction.max()))
    which = [np.isin(np.arange(1, side.max() + 1), chosen) for side in (truth, prediction)]
    sides = ChosenObjects(truth, chosen), ChosenObjects(prediction, chosen)
    assert object_hausdorff(*sides, overlaps.chosen(*which)) == 0


def test_without_objects():
    nothing = np.zeros(SHAPE, np.int32)
    assert math.isnan(of_all(nothing, nothing))
    assert of_all(nothing, ovals(0)) == of_all(ovals(0), nothing) == math.hypot(*SHAPE)
