"""The objects of a mask in memory, as an array of their numbers."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from genselfdiff.errors import InputError
from genselfdiff.objects.instances import Cores, Splitter, choose_splitter, least_area
from genselfdiff.objects.mask_objects import check_min_area
from genselfdiff.objects.outlines import OutlineTracer
from genselfdiff.objects.painting import paint
from genselfdiff.settings import check_mpp


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


def instances(
    labels: NDArray[np.uint8],
    mpp: float | None = None,
    *,
    cores: NDArray[np.bool_] | NDArray[np.floating] | None = None,
    seed_distance: float | None = None,
    min_area: float | None = None,
) -> NDArray[np.int32]:
    """Number the objects of class indices in memory; those that only touch have numbers each.

    They are those of ``write_objects`` with ``instances``.

    Args:
        labels: (H, W) uint8 class indices, 0 the background.
        mpp: um per pixel; None: unknown.
        cores: (H, W) where cores of objects are, or their probability, the last channel of a model
            that tells them. None: objects are taken apart where they are thin.
        seed_distance, min_area: see ``write_objects``.

    Returns:
        (H, W) int32: 0 where no object is, else 1, 2, ...

    Raises:
        InputError: an array is of another kind or shape, or a number out of range.
    """
    if not isinstance(labels, np.ndarray) or labels.ndim != 2 or labels.dtype != np.uint8:
        given = f"{getattr(labels, 'dtype', type(labels).__name__)} {np.shape(labels)}"
        raise InputError(f"labels: {given}: give class indices, (height, width) of uint8")
    if cores is not None and cores.shape != labels.shape:
        raise InputError(f"cores: of shape {cores.shape}, but labels of {labels.shape}")
    if mpp is not None:
        check_mpp(mpp)
    if min_area is not None:
        check_min_area(min_area)
    known = None if cores is None else windows_of(cores > 0.5)
    splitter = choose_splitter(True, seed_distance, mpp, min_area, known)
    least = least_area(min_area, mpp, apart=True) / (mpp or 1) ** 2
    return number_objects(labels, splitter=splitter, min_area=least).numbers
