"""Resolutions in micrometres per pixel (mpp): which are the same."""

MPP_TOLERANCE = 0.1
"""Relative difference up to which two statements of one resolution agree."""

SAME_SCALE = 0.02
"""Relative difference up to which two resolutions are the same: nothing is resampled."""

MAX_ENLARGEMENT = 8.0
"""Images are enlarged at most so much to reach a resolution: beyond it one of both is a mistake."""

BLURRED_ENLARGEMENT = 1.5
"""Enlarging more than this is worth a warning."""


def agree(a: float, b: float, tolerance: float = MPP_TOLERANCE) -> bool:
    """Whether two resolutions in um/px differ by at most ``tolerance``, relative to ``b``."""
    return abs(a / b - 1) <= tolerance
