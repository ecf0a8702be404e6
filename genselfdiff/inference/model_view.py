"""A slide as a model wants it: at the model's resolution."""

import logging

from genselfdiff.slides import ScaledView, Slide
from genselfdiff.slides.resolution import BLURRED_ENLARGEMENT, SAME_SCALE, agree

logger = logging.getLogger("genselfdiff")


def model_view(slide: Slide, mpp: float | None) -> tuple[ScaledView, float]:
    """The slide as a model of ``mpp`` wants it, and that view's pixel size in slide pixels.

    Warns if the slide's resolution, as the caller gave it, is not what its file says.

    Raises:
        InputError: the slide has no resolution, but the model needs one.
    """
    used, stored = slide.mpp, slide.stored_mpp
    if used is not None and stored is not None and not agree(used, stored, SAME_SCALE):
        logger.warning(
            "%s: its file says %g um/px, but %g was given and is used: check --mpp",
            slide.path,
            stored,
            used,
        )
    if mpp is None or (used is not None and agree(mpp, used, SAME_SCALE)):
        return slide.at_mpp(None), 1.0
    view = slide.at_mpp(mpp)
    if used is not None and used > BLURRED_ENLARGEMENT * mpp:
        logger.warning(
            "%s: %g um/px is coarser than the model's %g: enlarged, it looks blurred to the model",
            slide.path,
            used,
            mpp,
        )
    return view, view.scale
