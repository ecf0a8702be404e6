"""Cores of objects: what a network learns beside the classes, to tell objects apart that touch."""

import numpy as np
from numpy.typing import NDArray

CORE_DEPTH = 0.4
"""A core begins at this share of the greatest depth of its object."""


def cores_of(numbers: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Where objects are at least `CORE_DEPTH` as deep as at their deepest place.

    Depth is the distance to the nearest pixel of the object that touches another one or the
    background by a side. Cores never touch where objects do, and every object has one, also the
    smallest. Where the image ends, objects go on.

    Args:
        numbers: (H, W) number of the object of each pixel, 0 where none is.

    Returns:
        (H, W) bool.
    """
    # Imported here: most of training needs no SciPy.
    from scipy import ndimage

    padded = np.pad(numbers, 1, mode="edge")
    middle = padded[1:-1, 1:-1]
    at_edge = np.zeros(numbers.shape, np.bool_)
    for beside in (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]):
        at_edge |= beside != middle
    inside = numbers != 0
    if not at_edge.any():  # nothing, or one object, fills the image
        return inside
    depth = ndimage.distance_transform_edt(~at_edge) + 1
    found, place = np.unique(numbers, return_inverse=True)
    deepest = np.zeros(len(found))
    np.maximum.at(deepest, place.ravel(), depth.ravel())
    is_deep: NDArray[np.bool_] = depth >= CORE_DEPTH * deepest[place.reshape(numbers.shape)]
    return inside & is_deep
