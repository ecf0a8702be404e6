"""Random crops of labelled images, augmented."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from genselfdiff.data.labelled.augment import require_policy
from genselfdiff.data.labelled.images import LabelledImages
from genselfdiff.errors import InputError

Pixels = NDArray[np.uint8]


class LabelledCrops(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Random crops: item i is (uint8 (3, tile_size, tile_size), int64 (tile_size, tile_size)).

    Every item is a pure function of (``seed``, i). Images are drawn in proportion to their area,
    positions evenly. ``augment`` names a policy of `labelled.augment`; where it turns or
    magnifies, a larger or smaller window of the image is read, in which the crop lies wholly.

    An image smaller than its window is reflected: below and on the right, or where it is turned or
    magnified, on both sides alike, so that the crop shows its middle.

    Raises:
        InputError: there is no image, or no such policy.
    """

    def __init__(
        self,
        images: LabelledImages,
        *,
        tile_size: int,
        seed: int,
        length: int,
        augment: str = "default",
    ) -> None:
        if not len(images):
            raise InputError("no labelled image to cut crops from: give at least one pair")
        self._policy = require_policy(augment)
        self.images = images
        self.tile_size = tile_size
        self.seed = seed
        self.length = length
        self._cumulative_area = np.cumsum([labels.size for labels in images.labels])

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if not 0 <= index < self.length:
            raise IndexError(f"crop {index} of {self.length}")
        generator = np.random.default_rng((self.seed, index))
        chosen = self._draw_image(generator)
        image, labels = self.images.images[chosen], self.images.labels[chosen]
        warp = self._policy.draw_warp(generator)
        side = self.tile_size if warp is None else warp.window_side(self.tile_size)
        top, left = (_start(extent, side, warp is not None, generator) for extent in labels.shape)
        image, labels = _window(image, top, left, side), _window(labels, top, left, side)
        if warp is None:
            planes = image.transpose(2, 0, 1)
        else:
            planes, labels = warp.apply(image, labels, self.tile_size)
        planes, labels = self._policy.apply(planes, labels, generator)
        return (
            torch.from_numpy(np.ascontiguousarray(planes)),
            torch.from_numpy(labels.astype(np.int64)),
        )

    def stem(self, index: int) -> str:
        """Name of the image that crop ``index`` is of."""
        return self.images.stems[self._draw_image(np.random.default_rng((self.seed, index)))]

    def _draw_image(self, generator: np.random.Generator) -> int:
        pixel = generator.integers(self._cumulative_area[-1])
        return int(np.searchsorted(self._cumulative_area, pixel, side="right"))


def _start(extent: int, side: int, centred: bool, generator: np.random.Generator) -> int:
    """First row or column of a window; below 0 if the image is smaller and to be ``centred``."""
    if centred and extent < side:
        return (extent - side) // 2
    return int(generator.integers(max(1, extent - side + 1)))


def _window(array: Pixels, top: int, left: int, side: int) -> Pixels:
    """``array`` (H, W, ...) from (top, left) on, ``side`` pixels each way, reflected beyond it."""
    inside = array[max(0, top) : top + side, max(0, left) : left + side]
    missing = [
        (max(0, -start), max(0, start + side - extent))
        for start, extent in zip((top, left), array.shape[:2], strict=True)
    ]
    if not any(before or after for before, after in missing):
        return inside
    return np.pad(inside, missing + [(0, 0)] * (array.ndim - 2), mode="reflect")
