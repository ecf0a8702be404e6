"""Resolutions in micrometres per pixel (mpp): what may be one, and which are the same."""

from genselfdiff.errors import InputError

MPP_RANGE = (0.01, 100.0)
"""Range of um/px outside which a resolution that a user gives is taken for a mistake."""

MPP_TOLERANCE = 0.1
"""Relative difference up to which two statements of one resolution agree."""

SAME_SCALE = 0.02
"""Relative difference up to which two resolutions are the same: nothing is resampled."""

MAX_ENLARGEMENT = 8.0
"""Images are enlarged at most so much to reach a resolution: beyond it one of both is a mistake."""

BLURRED_ENLARGEMENT = 1.5
"""Enlarging more than this is worth a warning."""


def check_mpp(mpp: float, name: str = "mpp") -> None:
    """Raise InputError, with the setting's ``name``, unless ``mpp`` lies in ``MPP_RANGE``."""
    low, high = MPP_RANGE
    if not low <= mpp <= high:  # false for NaN
        raise InputError(f"{name} {mpp:g} must be between {low:g} and {high:g} um/px")


def agree(a: float, b: float, tolerance: float = MPP_TOLERANCE) -> bool:
    """Whether two resolutions in um/px differ by at most ``tolerance``, relative to ``b``."""
    return abs(a / b - 1) <= tolerance
