"""A field of a slide that might be annotated."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genselfdiff.storage.places import Place


@dataclass(frozen=True, eq=False)
class Field:
    """A rectangle of a slide with what is known of it.

    Attributes:
        slide: the file.
        x, y, width, height: in pixels of level 0.
        looks: (n,) colours and texture, such that Euclidean distances mean something.
        uncertainty: entropy of the classes in nats, mean of the pixels that were predicted; 0
            without a model.
        disagreement: the part of it by which the flips and turns of a tile contradict each other.
    """

    slide: Place
    x: int
    y: int
    width: int
    height: int
    looks: NDArray[np.floating]
    uncertainty: float = 0.0
    disagreement: float = 0.0
