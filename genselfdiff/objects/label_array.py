"""The objects of a mask in memory, as an array of their numbers."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from genselfdiff.objects.instances import Cores, Splitter
from genselfdiff.objects.outlines import OutlineTracer
from genselfdiff.objects.painting import paint


class NumberedObjects(NamedTuple):
    """Objects of a mask.

    Attributes:
        numbers: (H, W) int32: 0 where no object is, else 1, 2, ...
        classes: (n + 1,) int64 class of each number; 0 for the number 0.
    """

    numbers: NDArray[np.int32]
    classes: NDArray[np.int64]


def number_objects(
    mask: NDArray[np.uint8],
    *,
    splitter: Splitter | None = None,
    min_area: float = 0.0,
) -> NumberedObjects:
    """Number the objects of a mask, those that ``write_objects`` finds, in the same order.

    Args:
        mask: (H, W) class indices.
        splitter: takes objects apart that only touch; None: they stay together.
        min_area: in pixels; holes that are smaller are filled, then objects that are smaller are
            left out.
    """
    tracer = OutlineTracer(mask.shape[1], min_area)
    objects = [*tracer.push(mask), *tracer.finish()]
    if splitter is not None:
        objects = [*splitter.push(objects), *splitter.finish()]
    painted = paint([o.rings for o in objects], (mask.shape[0] + 1, mask.shape[1] + 1))
    classes = np.array([0, *(o.label for o in objects)], np.int64)
    return NumberedObjects(painted[:-1, :-1], classes)


def windows_of(cores: NDArray[np.bool_]) -> Cores:
    """Where cores are, from a whole array (H, W), as ``CoreSplitter`` asks for it."""
    return lambda left, top, width, height: cores[top : top + height, left : left + width]
