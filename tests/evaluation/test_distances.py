import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, directed_hausdorff

from genselfdiff.evaluation.distances import boundary_distances

pytestmark = pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI's


def blobs(seed: int, shape: tuple[int, int] = (70, 90)) -> np.ndarray:
    """Some discs, of which some reach the image's edges and some have holes."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    mask = np.zeros(shape, bool)
    for _ in range(random.integers(1, 6)):
        distance = np.hypot(y - random.uniform(0, shape[0]), x - random.uniform(0, shape[1]))
        mask |= (distance < random.uniform(2, 20)) & (distance > random.choice([0, 2]))
    return mask


def edge_points(mask: np.ndarray) -> np.ndarray:
    """Pixel by pixel, as the definition has it."""
    height, width = mask.shape
    return np.array(
        [
            (y, x)
            for y, x in np.argwhere(mask)
            if not all(
                0 <= j < height and 0 <= i < width and mask[j, i]
                for j, i in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
            )
        ]
    )


@pytest.mark.parametrize("seed", range(12))
def test_against_monai(seed):
    compute_hausdorff_distance = pytest.importorskip("monai.metrics").compute_hausdorff_distance
    truth, prediction = blobs(seed), blobs(seed + 100)
    ours = boundary_distances(truth, prediction)
    given = [torch.from_numpy(mask)[None, None] for mask in (prediction, truth)]
    for value, percentile in ((ours.hausdorff, None), (ours.hd95, 95)):
        theirs = compute_hausdorff_distance(*given, include_background=True, percentile=percentile)
        assert value == pytest.approx(float(theirs), rel=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_against_all_pairs_of_boundary_pixels(seed):
    truth, prediction = blobs(seed, (30, 40)), blobs(seed + 50, (30, 40))
    a, b = edge_points(truth), edge_points(prediction)
    ours = boundary_distances(truth, prediction)
    assert ours.hausdorff == pytest.approx(
        max(directed_hausdorff(a, b)[0], directed_hausdorff(b, a)[0])
    )
    apart = cdist(a, b)
    expected = max(np.percentile(apart.min(axis), 95) for axis in (0, 1))
    assert ours.hd95 == pytest.approx(expected)


def test_a_stray_pixel_decides_the_largest_distance_only():
    truth = np.zeros((100, 100), bool)
    truth[10:40, 10:40] = True
    prediction = truth.copy()
    prediction[39, 99] = True
    assert boundary_distances(truth, prediction) == (60, 0)


def test_the_same_mask_is_at_distance_0():
    assert boundary_distances(blobs(3), blobs(3)) == (0, 0)


def test_empty_masks():
    empty, full = np.zeros((30, 40), bool), blobs(0, (30, 40))
    for truth, prediction in ((empty, full), (full, empty)):
        assert boundary_distances(truth, prediction) == (50, 50)
    assert all(map(math.isnan, boundary_distances(empty, empty)))
