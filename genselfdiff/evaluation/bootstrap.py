"""Intervals of means over images, by resampling the images."""

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

RESAMPLES = 2000
_SEED = 0
_LEVEL = 95.0

_DRAWN_AT_ONCE = 2**20
"""Images; bounds memory."""


def mean_interval(values: Float64) -> tuple[float, float] | None:
    """The 95 % interval of the mean by the percentile bootstrap (Efron 1979).

    As many images are drawn with replacement as there are, 2,000 times, with a fixed seed: the same
    values give the same interval. With few images it is too narrow, and it knows nothing of several
    images of one patient.

    Args:
        values: (n,) one of each image, finite.

    Returns:
        Its lower and upper end; None of fewer than two images.
    """
    count = len(values)
    if count < 2:
        return None
    random = np.random.default_rng(_SEED)
    at_once = max(1, _DRAWN_AT_ONCE // count)
    means = np.concatenate(
        [
            values[random.integers(count, size=(min(at_once, RESAMPLES - done), count))].mean(1)
            for done in range(0, RESAMPLES, at_once)
        ]
    )
    low, high = np.percentile(means, ((100 - _LEVEL) / 2, (100 + _LEVEL) / 2))
    return float(low), float(high)
