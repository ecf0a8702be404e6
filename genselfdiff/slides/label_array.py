"""The objects of a mask in memory, as an array of their numbers."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from genselfdiff.slides.instances import CoreSplitter, InstanceSplitter, Splitter
from genselfdiff.slides.outline_steps import paint
from genselfdiff.slides.outlines import OutlineTracer


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
    seed_distance: float | None = None,
    cores: NDArray[np.bool_] | None = None,
    min_area: float = 0.0,
) -> NumberedObjects:
    """Number the objects of a mask, those that ``write_objects`` finds, in the same order.

    Args:
        mask: (H, W) class indices.
        seed_distance: in pixels: take objects apart that only touch, see ``InstanceSplitter``;
            None: leave them together.
        cores: (H, W) where the cores of objects are: take objects apart that have several.
        min_area: in pixels; holes that are smaller are filled, then objects that are smaller are
            left out.
    """
    tracer = OutlineTracer(mask.shape[1], min_area)
    objects = [*tracer.push(mask), *tracer.finish()]
    splitter: Splitter | None = None
    if cores is not None:
        splitter = CoreSplitter(lambda x, y, w, h: cores[y : y + h, x : x + w], min_area)
    elif seed_distance is not None:
        splitter = InstanceSplitter(seed_distance, min_area)
    if splitter is not None:
        objects = [*splitter.push(objects), *splitter.finish()]
    painted = paint([o.rings for o in objects], (mask.shape[0] + 1, mask.shape[1] + 1))
    classes = np.array([0, *(o.label for o in objects)], np.int64)
    return NumberedObjects(painted[:-1, :-1], classes)
