"""Labelled images, decoded once and kept on disk."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from genselfdiff.data.labelled.cores import cores_of
from genselfdiff.data.labelled.pairs import Pair, load_numbered_pair, load_pair
from genselfdiff.data.spool import spooled

Labels = TypeVar("Labels", NDArray[np.uint8], NDArray[np.int32])


CORE_LABEL = 2
"""Of the cores of objects, where labels are 1 in objects and 0 beside them."""


class LabelledImages:
    """Labelled images, resampled by ``scale`` (1 leaves them as they are).

    ``scale`` is the images' um/px over the wanted um/px. Images are area-averaged down or
    interpolated up; labels take the nearest pixel. ``icc`` is as for `open_slide`.

    Each image is decoded once, one at a time, into a temporary file that has no name (in the folder
    TMPDIR, 4 bytes a pixel, 8 with ``instances``) and is mapped from there: memory holds what is
    being read, and more only while nothing else needs it. Worker processes that are forked share
    it.

    With ``instances`` masks hold the numbers of objects; labels are 0 and 1, and `CORE_LABEL` in
    the cores of objects.

    Attributes:
        stems: the name of each image.
        images: uint8 (H, W, 3) each; not to be written to.
        labels: uint8 (H, W) each; not to be written to.
        numbers: with ``instances``, the objects' numbers, int32 (H, W) each; not to be written to.

    Raises:
        InputError: as `load_pair`.
        OutputError: there is no room for the temporary file.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        num_classes: int | None = None,
        foreground: bool = False,
        ignore_label: int | None = None,
        scale: float = 1.0,
        instances: bool = False,
        icc: bool = False,
    ) -> None:
        self.stems = [pair.stem for pair in pairs]

        def loaded() -> Iterator[NDArray[Any]]:
            for pair in pairs:
                if instances:
                    image, labels, numbers = load_numbered_pair(
                        pair, ignore_label=ignore_label, icc=icc
                    )
                    size = _scaled_size(labels, scale)
                    yield _smooth(image, size, scale)
                    labels, numbers = _nearest(labels, size), _nearest(numbers, size)
                    yield np.where(cores_of(numbers), np.uint8(CORE_LABEL), labels)
                    yield numbers[..., None].view(np.uint8)
                    continue
                image, labels = load_pair(
                    pair,
                    num_classes=num_classes,
                    foreground=foreground,
                    ignore_label=ignore_label,
                    icc=icc,
                )
                size = _scaled_size(labels, scale)
                yield _smooth(image, size, scale)
                yield _nearest(labels, size)

        arrays, kinds = spooled(loaded()), 3 if instances else 2
        self.images: list[NDArray[np.uint8]] = arrays[::kinds]
        self.labels: list[NDArray[np.uint8]] = arrays[1::kinds]
        numbers = arrays[2::kinds] if instances else []
        self.numbers = [stored.view(np.int32)[..., 0] for stored in numbers]

    def __len__(self) -> int:
        return len(self.images)


def _scaled_size(labels: NDArray[Any], scale: float) -> tuple[int, int]:
    height, width = labels.shape
    return max(1, round(width * scale)), max(1, round(height * scale))


def _smooth(image: NDArray[np.uint8], size: tuple[int, int], scale: float) -> NDArray[np.uint8]:
    # Pillow's box filter averages over areas; enlarging, it would only repeat pixels.
    smooth = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(image).resize(size, smooth))


def _nearest(labels: Labels, size: tuple[int, int]) -> Labels:
    return cast(Labels, np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST)))
