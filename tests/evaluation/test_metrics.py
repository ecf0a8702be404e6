import numpy as np
import pytest

from genselfdiff.errors import InputError
from genselfdiff.evaluation.metrics import confusion, dice, iou


def test_confusion_by_hand():
    labels = np.array([[0, 0, 1], [1, 1, 2]], np.uint8)
    prediction = np.array([[0, 1, 1], [1, 0, 2]], np.uint8)
    matrix = confusion(labels, prediction, 4)
    assert matrix.tolist() == [[1, 1, 0, 0], [1, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(dice(matrix), [2 / 4, 4 / 6, 1, 1])
    np.testing.assert_allclose(iou(matrix), [1 / 3, 2 / 4, 1, 1])


def test_against_the_definition():
    random = np.random.default_rng(0)
    labels, prediction = random.integers(0, 5, (2, 60, 70))
    matrix = confusion(labels, prediction, 5)
    assert matrix.sum() == labels.size
    for c in range(5):
        a, b = labels == c, prediction == c
        assert dice(matrix)[c] == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))
        assert iou(matrix)[c] == pytest.approx((a & b).sum() / (a | b).sum())


def test_a_class_that_only_one_side_has_scores_0():
    matrix = confusion(np.zeros((2, 2), np.uint8), np.full((2, 2), 1, np.uint8), 3)
    assert dice(matrix).tolist() == [0, 0, 1]
    assert iou(matrix).tolist() == [0, 0, 1]


def test_what_does_not_fit():
    zeros = np.zeros((2, 2), np.int64)
    with pytest.raises(InputError, match="prediction is"):
        confusion(zeros, zeros[:1], 2)
    with pytest.raises(InputError, match="labels hold values 0"):
        confusion(np.array([[0, 2], [0, 2]]), zeros, 2)
    with pytest.raises(InputError, match="prediction hold values -1"):
        confusion(zeros, zeros - 1, 2)
