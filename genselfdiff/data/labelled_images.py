"""Labelled images, decoded once and kept on disk."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from genselfdiff.data.pairs import Pair, load_pair
from genselfdiff.data.spool import spooled


class LabelledImages:
    """Labelled images, resampled by ``scale`` (1 leaves them as they are).

    ``scale`` is the images' um/px over the wanted um/px. Images are area-averaged down or
    interpolated up; labels take the nearest pixel.

    Each image is decoded once, one at a time, into a temporary file that has no name (in the folder
    TMPDIR, 4 bytes a pixel) and is mapped from there: memory holds what is being read, and more
    only while nothing else needs it. Worker processes that are forked share it.

    Attributes:
        stems: the name of each image.
        images: uint8 (H, W, 3) each; not to be written to.
        labels: uint8 (H, W) each; not to be written to.

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
    ) -> None:
        self.stems = [pair.stem for pair in pairs]
        loaded = (
            load_pair(
                pair, num_classes=num_classes, foreground=foreground, ignore_label=ignore_label
            )
            for pair in pairs
        )
        arrays = spooled(array for pair in loaded for array in _resample(*pair, scale))
        self.images: list[NDArray[np.uint8]] = arrays[::2]
        self.labels: list[NDArray[np.uint8]] = arrays[1::2]

    def __len__(self) -> int:
        return len(self.images)


def _resample(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], scale: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    height, width = (max(1, round(side * scale)) for side in labels.shape)
    if (height, width) == labels.shape:
        return image, labels
    # Pillow's box filter averages over areas; enlarging, it would only repeat pixels.
    smooth = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    return (
        np.asarray(Image.fromarray(image).resize((width, height), smooth)),
        np.asarray(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST)),
    )
