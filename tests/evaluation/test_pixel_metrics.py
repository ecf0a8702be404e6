import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_jaccard_index,
    multiclass_precision,
    multiclass_recall,
)

from genselfdiff.errors import InputError
from genselfdiff.evaluation.pixel_metrics import (
    accuracy,
    class_accuracy,
    confusion,
    dice,
    iou,
    precision,
    recall,
)

NAN = float("nan")


def test_confusion_by_hand():
    labels = np.array([[0, 0, 1], [1, 1, 2]], np.uint8)
    prediction = np.array([[0, 1, 1], [1, 0, 2]], np.uint8)
    matrix = confusion(labels, prediction, 4)
    assert matrix.tolist() == [[1, 1, 0, 0], [1, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(dice(matrix), [2 / 4, 4 / 6, 1, NAN])
    np.testing.assert_allclose(iou(matrix), [1 / 3, 2 / 4, 1, NAN])
    np.testing.assert_allclose(precision(matrix), [1 / 2, 2 / 3, 1, NAN])
    np.testing.assert_allclose(recall(matrix), [1 / 2, 2 / 3, 1, NAN])
    np.testing.assert_allclose(class_accuracy(matrix), [4 / 6, 4 / 6, 1, 1])
    assert accuracy(matrix) == pytest.approx(4 / 6)


def test_against_torchmetrics():
    random = np.random.default_rng(0)
    labels, prediction = random.integers(0, 5, (2, 60, 70))
    prediction = np.where(random.random(labels.shape) < 0.5, labels, prediction)
    labels[:9] = 7
    matrix = confusion(labels, prediction, 5, ignore_label=7)
    given = torch.from_numpy(prediction), torch.from_numpy(labels)
    options = {"num_classes": 5, "ignore_index": 7}
    np.testing.assert_array_equal(matrix, multiclass_confusion_matrix(*given, **options))
    for ours, theirs in (
        (dice, multiclass_f1_score),
        (iou, multiclass_jaccard_index),
        (precision, multiclass_precision),
        (recall, multiclass_recall),
    ):
        expected = theirs(*given, average="none", **options)
        np.testing.assert_allclose(ours(matrix), expected, rtol=1e-6, err_msg=ours.__name__)
    overall = multiclass_accuracy(*given, average="micro", **options)
    assert accuracy(matrix) == pytest.approx(float(overall), rel=1e-6)


def test_the_accuracy_of_a_class_asks_only_about_that_class():
    random = np.random.default_rng(1)
    labels, prediction = random.integers(0, 3, (2, 30, 30))
    matrix = confusion(labels, prediction, 3)
    for c in range(3):
        expected = ((labels == c) == (prediction == c)).mean()
        assert class_accuracy(matrix)[c] == pytest.approx(expected)


def test_undefined_is_not_perfect():
    """Class 1 is predicted only, 2 true only, 3 neither."""
    matrix = confusion(np.array([0, 0, 2]), np.array([0, 1, 1]), 4)
    np.testing.assert_array_equal(dice(matrix)[1:], [0, 0, NAN])
    np.testing.assert_array_equal(iou(matrix)[1:], [0, 0, NAN])
    np.testing.assert_array_equal(precision(matrix)[1:], [0, NAN, NAN])
    np.testing.assert_array_equal(recall(matrix)[1:], [NAN, 0, NAN])


def test_without_a_pixel_nothing_is_defined():
    matrix = confusion(np.full((2, 2), 9), np.zeros((2, 2), np.uint8), 2, ignore_label=9)
    assert np.isnan(accuracy(matrix))
    for metric in (dice, iou, precision, recall, class_accuracy):
        assert np.isnan(metric(matrix)).all()


def test_what_does_not_fit():
    zeros = np.zeros((2, 2), np.int64)
    with pytest.raises(InputError, match="prediction is"):
        confusion(zeros, zeros[:1], 2)
    with pytest.raises(InputError, match="labels hold values 0"):
        confusion(np.array([[0, 2], [0, 2]]), zeros, 2)
    with pytest.raises(InputError, match="prediction hold values -1"):
        confusion(zeros, zeros - 1, 2)
