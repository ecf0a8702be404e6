import math

import numpy as np
import pytest
from scipy import ndimage

from genselfdiff.evaluation.distances import boundary_distances
from genselfdiff.evaluation.instance_metrics import InstanceCounts, count_instances, find_overlaps
from genselfdiff.evaluation.object_distances import ChosenObjects, object_hausdorff
from genselfdiff.evaluation.scoring import ObjectOptions, Prediction, Truth, score_image


def discs(seed: int, classes: int = 2) -> np.ndarray:
    """Discs of classes 1 to ``classes``, some over others."""
    random = np.random.default_rng(seed)
    labels = np.zeros((80, 100), np.uint8)
    y, x = np.mgrid[:80, :100]
    for _ in range(25):
        distance = np.hypot(y - random.uniform(0, 80), x - random.uniform(0, 100))
        labels[distance < random.uniform(3, 9)] = random.integers(1, classes + 1)
    return labels


def pair(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    truth = discs(seed)
    prediction = np.roll(truth, 2, 0)
    prediction[:, :12] = discs(seed + 1)[:, :12]
    return truth, prediction


def test_each_class_is_compared_by_itself():
    truth, prediction = pair()
    scores = score_image("field", Truth(truth), Prediction(prediction), 3).scores
    assert (scores.name, scores.width, scores.height, scores.mpp) == ("field", 100, 80, None)
    for c in (1, 2):
        a, b = truth == c, prediction == c
        assert tuple(scores.distances[c, :2]) == boundary_distances(a, b)
        (true, n), (found, m) = ndimage.label(a), ndimage.label(b)
        overlaps = find_overlaps(true, found, n, m)
        assert vars(scores.instances[c]) == pytest.approx(vars(count_instances(overlaps)))
        sides = ChosenObjects(true, np.arange(1, n + 1)), ChosenObjects(found, np.arange(1, m + 1))
        assert scores.distances[c, 2] == pytest.approx(object_hausdorff(*sides, overlaps))
    assert np.isnan(scores.distances[0]).all()
    assert scores.instances[0] == InstanceCounts()


def test_distances_in_um():
    truth, prediction = pair()
    scores = score_image("field", Truth(truth), Prediction(prediction), 3, mpp=0.25).scores.by_class
    for key in ("hausdorff", "hd95", "object_hausdorff"):
        np.testing.assert_allclose(scores[f"{key}_um"], 0.25 * scores[f"{key}_px"])
    unknown = score_image("field", Truth(truth), Prediction(prediction), 3).scores.by_class
    assert np.isnan(unknown["hd95_um"]).all()
    assert np.isfinite(unknown["hd95_px"][1:]).all()


def test_what_is_ignored_is_neither_truth_nor_prediction():
    """The scores are those of images that hold background there, but for its counted pixels."""
    truth, prediction = pair()
    ignored = np.zeros(truth.shape, bool)
    ignored[20:60, 30:70] = True
    marked = np.where(ignored, 255, truth).astype(np.uint8)
    scores = score_image("field", Truth(marked, 255), Prediction(prediction), 3).scores
    assert scores.matrix.sum() == (~ignored).sum()
    erased = [np.where(ignored, 0, side).astype(np.uint8) for side in (truth, prediction)]
    expected = score_image("field", Truth(erased[0]), Prediction(erased[1]), 3).scores
    np.testing.assert_array_equal(scores.distances[:, :2], expected.distances[:, :2])
    np.testing.assert_array_equal(scores.matrix[1:, 1:], expected.matrix[1:, 1:])


def test_ignored_pixels_cut_objects_but_make_no_new_ones():
    truth = np.zeros((9, 9), np.uint8)
    truth[:, 4] = 9
    prediction = np.zeros((9, 9), np.uint8)
    prediction[2, 1:8] = 1
    prediction[6, 4] = 1
    comparison = score_image("field", Truth(truth, 9), Prediction(prediction), 2)
    assert comparison.scores.instances[1].predicted == 1
    assert np.count_nonzero(comparison.prediction.numbers) == 6


def test_true_objects_by_number():
    truth = np.array([[1, 1, 2, 2, 0, 1]], np.uint8)
    numbers = np.array([[7, 7, 7, 900, 5, 0]], np.uint16)
    comparison = score_image("field", Truth(truth, numbers=numbers), Prediction(truth), 3)
    assert [counts.truth for counts in comparison.scores.instances] == [0, 1, 2]
    assert comparison.truth.classes[comparison.truth.numbers].tolist() == [[1, 1, 2, 2, 0, 0]]


def test_touching_objects_are_taken_apart_where_asked_for():
    y, x = np.mgrid[:40, :60]
    truth = np.zeros((40, 60), np.uint8)
    truth[(np.hypot(y - 20, x - 20) < 11) | (np.hypot(y - 20, x - 38) < 11)] = 1
    numbers = truth * np.where(x < 29, 1, 2)
    given = "field", Truth(truth, numbers=numbers), Prediction(truth), 2
    together = score_image(*given).scores
    apart = score_image(*given, objects=ObjectOptions(instances=True)).scores
    assert (together.instances[1].predicted, apart.instances[1].predicted) == (1, 2)
    assert apart.by_class["pq"][1] > 0.9 > together.by_class["pq"][1]


def test_cores_tell_what_touches_apart_unless_asked_otherwise():
    truth = np.zeros((20, 60), np.uint8)
    truth[5:15, 5:45] = 1
    numbers = truth.astype(np.int32) + (truth & (np.arange(60) >= 25))
    cores = np.zeros(truth.shape, np.bool_)
    cores[8:12, 10:20] = cores[8:12, 30:40] = True
    counts = []
    for instances, seed_distance in ((None, None), (True, None), (False, None), (True, 6.0)):
        options = ObjectOptions(instances, seed_distance)
        given = "field", Truth(truth, numbers=numbers), Prediction(truth, cores), 2
        comparison = score_image(*given, objects=options)
        counts.append(comparison.scores.instances[1].predicted)
        if counts[-1] == 2:
            assert comparison.scores.by_class["pq"][1] > 0.95
    assert counts == [2, 2, 1, 1]


@pytest.mark.parametrize(("mpp", "predicted"), [(None, 1), (0.5, 2), (2.0, 2)])
def test_the_least_area_is_in_um2_where_the_resolution_is_known(mpp, predicted):
    prediction = np.zeros((20, 20), np.uint8)
    prediction[1:4, 1:4] = prediction[8:18, 8:18] = 1
    area = {None: 20, 0.5: 2, 2.0: 36}[mpp]
    options = ObjectOptions(min_area=area)
    given = "field", Truth(prediction), Prediction(prediction), 2
    scores = score_image(*given, mpp=mpp, objects=options).scores
    assert scores.instances[1].predicted == predicted
    assert scores.instances[1].truth == 2


def test_nothing_true_and_nothing_predicted():
    nothing = np.zeros((30, 40), np.uint8)
    scores = score_image("field", Truth(nothing), Prediction(nothing), 2, mpp=0.5).scores
    undefined = {key for key, values in scores.by_class.items() if math.isnan(values[1])}
    assert undefined == scores.by_class.keys() - {"accuracy"}
    assert math.isnan(scores.mean_dice)
    assert scores.of_image["accuracy"] == 1
    assert math.isnan(scores.of_image["authors_aji"])


def test_nothing_true_or_nothing_predicted():
    nothing, disc = np.zeros((30, 40), np.uint8), discs(0, 1)[:30, :40]
    for truth, prediction, undefined in (
        (nothing, disc, {"recall", "sq"}),
        (disc, nothing, {"precision", "sq"}),
    ):
        scores = score_image("field", Truth(truth), Prediction(prediction), 2).scores.by_class
        assert {
            key for key, values in scores.items() if math.isnan(values[1]) and "_um" not in key
        } == undefined
        for key in ("dice", "iou", "aji", "aji_plus", "pq", "dq", "object_f1", "object_dice"):
            assert scores[key][1] == 0
        for key in ("hausdorff_px", "hd95_px", "object_hausdorff_px"):
            assert scores[key][1] == 50
