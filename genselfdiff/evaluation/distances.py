"""How far the boundaries of truth and prediction lie apart."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Bool = NDArray[np.bool_]
Float64 = NDArray[np.float64]

_PERCENTILE = 95.0


class Distances(NamedTuple):
    """Distances between two masks, in pixels; NaN where both are empty.

    Attributes:
        hausdorff: the largest of all distances from a boundary pixel of one mask to the nearest of
            the other.
        hd95: the larger of the 95th percentiles of the two directions; unlike the largest, a
            single stray object does not decide it.
    """

    hausdorff: float
    hd95: float


def boundary_distances(truth: Bool, prediction: Bool) -> Distances:
    """Compare the boundaries of two masks.

    A mask's boundary are its pixels with one outside above, below, left or right; beyond the image
    is outside. Distances are between the pixels' middles. Percentiles are interpolated linearly,
    and the larger of the two directions counts (Hausdorff distance as in Huttenlocher et al. 1993,
    https://doi.org/10.1109/34.232073; HD95 as MONAI has it).

    Args:
        truth, prediction: (H, W) bool.

    Returns:
        Both distances; where one mask is empty, the diagonal of the image, sqrt(H^2 + W^2): no two
        pixels lie farther apart.
    """
    if not truth.any() or not prediction.any():
        both_empty = not truth.any() and not prediction.any()
        distance = math.nan if both_empty else math.hypot(*truth.shape)
        return Distances(distance, distance)
    edges = _boundary(truth), _boundary(prediction)
    directed = [_nearest(edges[0], edges[1]), _nearest(edges[1], edges[0])]
    return Distances(
        max(float(distances.max()) for distances in directed),
        max(float(np.percentile(distances, _PERCENTILE)) for distances in directed),
    )


def _boundary(mask: Bool) -> Bool:
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def _nearest(sources: Bool, targets: Bool) -> Float64:
    """The distance of every pixel of ``sources`` to the nearest of ``targets``; neither empty."""
    # A tree of points is twice as fast as a distance transform, and takes memory for the boundary
    # only. Imported here: no other part of the package needs it.
    from scipy.spatial import KDTree

    distances = np.zeros(np.count_nonzero(sources))
    apart = ~targets[sources]
    if apart.any():
        tree = KDTree(np.argwhere(targets))
        distances[apart] = tree.query(np.argwhere(sources & ~targets))[0]
    return distances
