"""Outlines of truth and prediction over the image that they are of."""

import numpy as np
from numpy.typing import NDArray

from genselfdiff.errors import InputError
from genselfdiff.masks import mark_edges

Uint8 = NDArray[np.uint8]
Labels = NDArray[np.integer]

TRUTH_COLOUR = (0, 255, 60)
PREDICTION_COLOUR = (30, 130, 255)
BOTH_COLOUR = (255, 255, 255)
"""Green and a bright blue lie far from H&E, and from each other for every kind of colour vision; a
test holds them to it. Where the outlines agree, the eye need not stop."""

_IGNORED = 128
"""Grey that ignored pixels are half made of."""


def draw_outlines(
    image: Uint8,
    truth: Labels,
    prediction: Labels,
    *,
    ignore_label: int | None = None,
    width: int = 1,
) -> Uint8:
    """Draw where the objects of truth and prediction end.

    Outlines are inside the objects: in TRUTH_COLOUR, in PREDICTION_COLOUR, and in BOTH_COLOUR where
    both are.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth, prediction: (H, W) classes or numbers of objects; 0 where none is. Neighbours of
            different labels are parted.
        ignore_label: pixels of this truth are greyed, and have no outlines.
        width: of the outlines in pixels.

    Returns:
        A new (H, W, 3) uint8 RGB picture.

    Raises:
        InputError: the shapes differ.
    """
    if not image.shape[:2] == truth.shape == prediction.shape:
        raise InputError(
            f"image is {image.shape[:2]}, but truth {truth.shape}, prediction {prediction.shape}"
        )
    picture = image.copy()
    if ignore_label is not None:
        ignored = truth == ignore_label
        picture[ignored] = picture[ignored] // 2 + _IGNORED // 2
        truth, prediction = np.where(ignored, 0, truth), np.where(ignored, 0, prediction)
    edge_of_truth, edge_of_prediction = _outlines(truth, width), _outlines(prediction, width)
    picture[edge_of_truth] = TRUTH_COLOUR
    picture[edge_of_prediction] = PREDICTION_COLOUR
    picture[edge_of_truth & edge_of_prediction] = BOTH_COLOUR
    return picture


def _outlines(labels: Labels, width: int) -> NDArray[np.bool_]:
    edges = mark_edges(labels)
    for _ in range(width - 1):
        wider = edges.copy()
        wider[1:] |= edges[:-1]
        wider[:-1] |= edges[1:]
        wider[:, 1:] |= edges[:, :-1]
        wider[:, :-1] |= edges[:, 1:]
        edges = wider
    return edges & (labels > 0)
