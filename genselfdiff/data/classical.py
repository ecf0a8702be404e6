"""A classical rule that finds nuclei: stand-in labels where no pathologist has drawn any."""

# mypy: allow-untyped-calls
# scikit-image says that it is typed, and is only in part.

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2hed
from skimage.filters import gaussian, threshold_otsu
from skimage.measure import label
from skimage.morphology import isotropic_opening

SMOOTHING_UM = 0.75
"""Sigma of the smoothing: below a nucleus, above the grain of its chromatin."""

OPENING_UM = 0.5
"""Radius of the opening that cuts threads between nuclei."""

MIN_NUCLEUS_UM2 = 10.0
"""Smaller objects are no nuclei (a lymphocyte has about 30)."""

MAX_HOLE_UM2 = 20.0
"""Smaller holes are pale chromatin inside a nucleus."""


def otsu_nuclei(image: NDArray[np.uint8], mpp: float) -> NDArray[np.uint8]:
    """Label nuclei in an H&E field by the density of haematoxylin.

    The stains are separated by colour deconvolution (Ruifrok and Johnston 2001), haematoxylin is
    smoothed and split by Otsu's threshold, and objects and holes too small for a nucleus are
    removed. A crude rule, meant for demonstrations and as a floor to compare with.

    Args:
        image: uint8 (H, W, 3), RGB.
        mpp: resolution in um/px.

    Returns:
        uint8 (H, W): 1 where a nucleus is, else 0; all 0 for a field of one colour.
    """
    haematoxylin = gaussian(rgb2hed(image)[..., 0].astype(np.float32), SMOOTHING_UM / mpp)
    # A field of one colour varies by rounding only, and has no two classes to tell apart.
    if np.ptp(haematoxylin) < 1e-6:
        return np.zeros(image.shape[:2], np.uint8)
    nuclei = haematoxylin > threshold_otsu(haematoxylin)
    nuclei = isotropic_opening(nuclei, OPENING_UM / mpp)
    nuclei = _without_small(nuclei, MIN_NUCLEUS_UM2 / mpp**2)
    nuclei = ~_without_small(~nuclei, MAX_HOLE_UM2 / mpp**2)
    return nuclei.astype(np.uint8)


def _without_small(mask: NDArray[np.bool_], area: float) -> NDArray[np.bool_]:
    """``mask`` without its 4-connected parts of fewer than ``area`` pixels."""
    parts: NDArray[np.intp] = label(mask, connectivity=1)
    kept: NDArray[np.bool_] = np.bincount(parts.ravel()) >= area
    kept[0] = False
    return kept[parts]
