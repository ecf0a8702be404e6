import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from skimage.measure import regionprops
from torchmetrics.functional.detection import panoptic_quality

from genselfdiff.evaluation.authors_metrics import authors_aji_counts
from genselfdiff.evaluation.instance_metrics import (
    InstanceCounts,
    count_instances,
    find_overlaps,
)
from genselfdiff.evaluation.pixel_metrics import confusion, iou


def field(seed: int, count: int = 14, size: int = 48) -> np.ndarray:
    """Numbered discs that lie over each other."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    numbers = np.zeros((size, size), np.int64)
    for _ in range(count):
        distance = np.hypot(y - random.uniform(0, size), x - random.uniform(0, size))
        numbers[distance < random.uniform(2, 8)] = numbers.max() + 1
    return np.unique(numbers, return_inverse=True)[1].reshape(numbers.shape)


def shaken(numbers: np.ndarray, seed: int) -> np.ndarray:
    """A prediction: shifted, some objects left out, joined, or invented."""
    random = np.random.default_rng(seed)
    changed = np.roll(numbers, random.integers(0, 3, 2), (0, 1))
    changed[np.isin(changed, random.choice(numbers.max(), 3) + 1)] = 0
    first, second = random.choice(numbers.max(), 2) + 1
    changed[changed == first] = second
    y, x = random.integers(0, 40, 2)
    changed[y : y + 5, x : x + 6] = numbers.max() + 1
    return np.unique(changed, return_inverse=True)[1].reshape(numbers.shape)


def fields() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for seed in range(20):
        truth = field(seed)
        yield truth, shaken(truth, seed + 1)


def counts_of(truth: np.ndarray, prediction: np.ndarray) -> InstanceCounts:
    return count_instances(
        find_overlaps(truth, prediction, int(truth.max()), int(prediction.max()))
    )


def objects_of(numbers: np.ndarray) -> list[set[tuple[int, int]]]:
    return [set(map(tuple, region.coords.tolist())) for region in regionprops(numbers)]


def aji_as_published(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Algorithm 1 of Kumar et al. 2017, on sets of pixels."""
    predicted = objects_of(prediction)
    used = set()
    intersection = union = 0
    for true in objects_of(truth):
        best = max(range(len(predicted)), key=lambda j: jaccard(true, predicted[j]))
        if true & predicted[best]:
            intersection += len(true & predicted[best])
            union += len(true | predicted[best])
            used.add(best)
        else:
            union += len(true)
    union += sum(len(other) for j, other in enumerate(predicted) if j not in used)
    return intersection / union


def aji_plus_as_published(truth: np.ndarray, prediction: np.ndarray) -> float:
    """One dense assignment of all objects to all, on sets of pixels."""
    true, predicted = objects_of(truth), objects_of(prediction)
    gain = np.array([[jaccard(a, b) for b in predicted] for a in true])
    pairs = [(i, j) for i, j in zip(*linear_sum_assignment(-gain), strict=True) if gain[i, j]]
    rows, columns = zip(*pairs, strict=True)
    union = sum(len(true[i] | predicted[j]) for i, j in pairs)
    union += sum(len(a) for i, a in enumerate(true) if i not in rows)
    union += sum(len(b) for j, b in enumerate(predicted) if j not in columns)
    return sum(len(true[i] & predicted[j]) for i, j in pairs) / union


def jaccard(a: set[tuple[int, int]], b: set[tuple[int, int]]) -> float:
    return len(a & b) / len(a | b)


def test_aji_against_its_definition():
    scores = [
        (counts_of(*pair).aji, aji_as_published(*pair), aji_plus_as_published(*pair))
        for pair in fields()
    ]
    for ours, expected, _ in scores:
        assert ours == pytest.approx(expected)
    assert any(abs(aji - plus) > 0.01 for _, aji, plus in scores), "the fields tell them apart"


def test_aji_plus_against_its_definition():
    for pair in fields():
        assert counts_of(*pair).aji_plus == pytest.approx(aji_plus_as_published(*pair))


def most_shared(own: set[tuple[int, int]], others: list[set]) -> set:
    best = max(others, key=lambda other: (len(own & other), jaccard(own, other)))
    return best if own & best else set()


def test_f1_and_dice_of_objects_against_their_definition():
    """Equations 1 to 5 of Sirinukunwattana et al. 2017, on sets of pixels."""
    for truth, prediction in fields():
        true, predicted = objects_of(truth), objects_of(prediction)
        counts = counts_of(truth, prediction)
        detected = 0
        for found in predicted:
            partner = most_shared(found, true)
            detected += bool(partner) and len(found & partner) > 0.5 * len(partner)
        precision, recall = detected / len(predicted), detected / len(true)
        f1 = 2 * precision * recall / (precision + recall)
        assert counts.object_f1 == pytest.approx(f1)
        means = []
        for own, others in ((true, predicted), (predicted, true)):
            partners = [most_shared(a, others) for a in own]
            dice = [2 * len(a & b) / (len(a) + len(b)) for a, b in zip(own, partners, strict=True)]
            means.append(np.average(dice, weights=[len(a) for a in own]))
        assert counts.object_dice == pytest.approx(np.mean(means))


def test_an_object_is_detected_once_and_by_more_than_half():
    truth = np.array([[1, 1, 1, 1, 0, 2, 2]])
    halves = np.array([[1, 1, 2, 2, 0, 3, 0]])
    assert counts_of(truth, halves).detected == 0
    joined = np.ones_like(truth)
    assert counts_of(truth, joined).detected == 1
    assert counts_of(truth, truth).object_f1 == counts_of(truth, truth).object_dice == 1


def test_panoptic_quality_against_monai():
    monai = pytest.importorskip("monai.metrics.panoptic_quality")
    for truth, prediction in fields():
        ours = counts_of(truth, prediction)
        given = torch.from_numpy(prediction), torch.from_numpy(truth)
        for value, name in ((ours.pq, "pq"), (ours.sq, "sq"), (ours.dq, "rq")):
            theirs = monai.compute_panoptic_quality(*given, metric_name=name, smooth_numerator=0)
            assert value == pytest.approx(float(theirs), rel=1e-5), name


def test_panoptic_quality_of_pooled_classes_against_torchmetrics():
    """Two fields of two classes: each class is counted by itself, images add up."""
    pooled = [InstanceCounts(), InstanceCounts()]
    given = []
    for seed in (3, 4):
        truth = field(seed)
        prediction = shaken(truth, seed)
        of_truth = np.append(0, 1 + np.arange(truth.max()) % 2)
        of_prediction = np.append(0, 1 + np.arange(prediction.max()) % 2)
        overlaps = find_overlaps(truth, prediction, truth.max(), prediction.max())
        for c in (1, 2):
            chosen = overlaps.chosen(of_truth[1:] == c, of_prediction[1:] == c)
            pooled[c - 1] += count_instances(chosen)
        given.append(
            [
                np.stack((classes[numbers], numbers), -1)
                for numbers, classes in ((prediction, of_prediction), (truth, of_truth))
            ]
        )
    theirs = panoptic_quality(
        *(torch.from_numpy(np.stack(side)) for side in zip(*given, strict=True)),
        things={1, 2},
        stuffs={0},
        return_per_class=True,
        return_sq_and_rq=True,
    )
    by_class = dict(zip((1, 2, 0), theirs.tolist(), strict=True))
    for c in (1, 2):
        ours = pooled[c - 1]
        assert (ours.pq, ours.sq, ours.dq) == pytest.approx(by_class[c], rel=1e-6)


def test_several_may_take_one_prediction_in_aji_but_not_in_aji_plus():
    truth = np.array([[1, 1, 2, 2, 2]])
    prediction = np.ones_like(truth)
    counts = counts_of(truth, prediction)
    assert counts.aji == pytest.approx((2 + 3) / (5 + 5))
    assert counts.aji_plus == pytest.approx(3 / (5 + 2))


def test_half_an_overlap_is_no_match():
    truth, prediction = np.array([[1, 1, 1, 0]]), np.array([[0, 1, 1, 1]])
    assert counts_of(truth, prediction).matched == 0
    assert counts_of(truth, prediction).pq == 0
    assert math.isnan(counts_of(truth, prediction).sq)


@pytest.mark.parametrize("empty_side", [0, 1])
def test_one_side_empty(empty_side):
    sides = [field(0), field(0)]
    sides[empty_side] = np.zeros_like(sides[0])
    counts = counts_of(*sides)
    assert (counts.aji, counts.aji_plus, counts.pq, counts.dq) == (0, 0, 0, 0)
    assert (counts.object_f1, counts.object_dice) == (0, 0)
    assert math.isnan(counts.sq)


def test_both_sides_empty():
    counts = counts_of(np.zeros((4, 4), int), np.zeros((4, 4), int))
    assert counts == InstanceCounts()
    of_challenge = counts.object_f1, counts.object_dice
    for value in (counts.aji, counts.aji_plus, counts.pq, counts.dq, counts.sq, *of_challenge):
        assert math.isnan(value)


def test_the_authors_aji_takes_each_class_for_one_object():
    random = np.random.default_rng(0)
    truth, prediction = random.integers(0, 4, (2, 30, 30))
    prediction = np.where(random.random(truth.shape) < 0.6, truth, prediction)
    counts = authors_aji_counts(confusion(truth, prediction, 4))
    assert counts.aji == pytest.approx(aji_as_published(truth, prediction))
    foreground = confusion(truth > 0, prediction > 0, 2)
    assert authors_aji_counts(foreground).aji == pytest.approx(iou(foreground)[1])


def test_the_authors_aji_where_classes_are_absent():
    truth, prediction = np.array([[1, 1, 0, 0]]), np.array([[0, 2, 2, 0]])
    assert authors_aji_counts(confusion(truth, prediction, 4)).aji == pytest.approx(1 / 3)
    nothing = authors_aji_counts(confusion(truth * 0, truth * 0, 4))
    assert math.isnan(nothing.aji)
