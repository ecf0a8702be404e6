"""Pictures of evaluated images, of which only the worst and the best are kept."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from genselfdiff.evaluation.evaluate import Case
from genselfdiff.evaluation.outlines_picture import draw_outlines
from genselfdiff.evaluation.scores import ImageScores
from genselfdiff.pages import jpeg_address

_WORST, _BEST = 40, 10
"""Pictures kept, of some 0.5 MB each: what a browser still shows with ease."""

_SIDE = 1200
"""Longer side in pixels; larger images are made smaller."""

_LINE = 2
"""Pixels: a screen shows most pictures smaller than they are."""

_IGNORED = -1


def worst_first(scores: ImageScores) -> tuple[bool, float, str]:
    """Order of images: by mean Dice, those without one last."""
    score = scores.mean_dice
    return np.isnan(score), score, scores.name


class CasePictures:
    """Draws images as they are evaluated.

    Attributes:
        addresses: a picture of each image that has one, by name, see ``jpeg_address``: of all, or
            of the 40 worst and 10 best.
    """

    def __init__(self) -> None:
        self.addresses: dict[str, str] = {}
        self._drawn: list[ImageScores] = []

    def add(self, case: Case) -> None:
        """Draw a case; forget the one that is no longer among the worst or best."""
        scores = case.comparison.scores
        self._drawn = sorted((*self._drawn, scores), key=worst_first)
        forgotten = None
        if len(self._drawn) > _WORST + _BEST:
            # One without a score, which are the last, or else one between the worst and the best.
            place = -1 if np.isnan(self._drawn[-1].mean_dice) else _WORST
            forgotten = self._drawn.pop(place)
        if forgotten is not scores:
            self.addresses[scores.name] = jpeg_address(_draw(case))
        if forgotten is not None:
            self.addresses.pop(forgotten.name, None)


def _draw(case: Case) -> NDArray[np.uint8]:
    """Outlines over the image: of objects, and of classes."""
    num_classes = len(case.comparison.scores.matrix)
    truth = np.where(
        case.truth < num_classes,
        case.truth + num_classes * case.comparison.truth.numbers,
        _IGNORED,
    )
    prediction = case.prediction + num_classes * case.comparison.prediction.numbers
    height, width = truth.shape
    scale = _SIDE / max(height, width)
    image = case.image
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
        rows = ((np.arange(size[1]) + 0.5) * height / size[1]).astype(np.intp)
        columns = ((np.arange(size[0]) + 0.5) * width / size[0]).astype(np.intp)
        truth, prediction = truth[np.ix_(rows, columns)], prediction[np.ix_(rows, columns)]
    return draw_outlines(image, truth, prediction, ignore_label=_IGNORED, width=_LINE)
