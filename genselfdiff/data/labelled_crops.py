"""Random crops of labelled images, augmented."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from genselfdiff.data.augment import augment as augment_pair
from genselfdiff.data.augment import require_policy
from genselfdiff.data.labelled_images import LabelledImages
from genselfdiff.errors import InputError


class LabelledCrops(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Random crops: item i is (uint8 (3, tile_size, tile_size), int64 (tile_size, tile_size)).

    Every item is a pure function of (``seed``, i). Images are drawn in proportion to their area,
    positions evenly; an image smaller than the tile is reflected up to it. ``augment`` names a
    policy of `genselfdiff.data.augment`.

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
        require_policy(augment)
        self.images = images
        self.tile_size = tile_size
        self.seed = seed
        self.length = length
        self.augment = augment
        self._cumulative_area = np.cumsum([labels.size for labels in images.labels])

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if not 0 <= index < self.length:
            raise IndexError(f"crop {index} of {self.length}")
        generator = np.random.default_rng((self.seed, index))
        pixel = generator.integers(self._cumulative_area[-1])
        chosen = int(np.searchsorted(self._cumulative_area, pixel, side="right"))
        image, labels = self.images.images[chosen], self.images.labels[chosen]
        size = self.tile_size
        top = int(generator.integers(max(1, labels.shape[0] - size + 1)))
        left = int(generator.integers(max(1, labels.shape[1] - size + 1)))
        window = (slice(top, top + size), slice(left, left + size))
        image, labels = _reflected(image[window], size), _reflected(labels[window], size)
        planes, classes = augment_pair(self.augment, image.transpose(2, 0, 1), labels, generator)
        return (
            torch.from_numpy(np.ascontiguousarray(planes)),
            torch.from_numpy(classes.astype(np.int64)),
        )


def _reflected(array: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """``array`` (H, W, ...) padded at the bottom and right to ``size`` by reflection."""
    missing = [(0, size - side) for side in array.shape[:2]]
    if not any(after for _, after in missing):
        return array
    return np.pad(array, missing + [(0, 0)] * (array.ndim - 2), mode="reflect")
