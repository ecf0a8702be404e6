"""Labelled images and random crops of them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from genselfdiff.data.labelled.crops import LabelledCrops
from genselfdiff.data.labelled.images import LabelledImages
from genselfdiff.data.labelled.pairs import Pair
from genselfdiff.errors import InputError


def random_labels(height: int, width: int, classes: int = 4, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, classes, (height, width)).astype(np.uint8)


def labelled(pairs: list[Pair], **options: float) -> LabelledImages:
    return LabelledImages(pairs, num_classes=200, **options)


def test_crops_keep_image_and_labels_together(pair: Callable[..., Pair]) -> None:
    images = labelled([pair(random_labels(90, 120))])
    for policy in ("none", "paper", "default"):
        image, labels = LabelledCrops(images, tile_size=32, seed=1, length=5, augment=policy)[4]
        assert (image.shape, image.dtype) == ((3, 32, 32), torch.uint8)
        assert (labels.shape, labels.dtype) == ((32, 32), torch.int64)
    for image, labels in LabelledCrops(images, tile_size=32, seed=1, length=20, augment="none"):
        assert torch.equal(image[0].long(), labels)


def test_crops_reach_every_place(pair: Callable[..., Pair]) -> None:
    images = labelled([pair(random_labels(34, 36))])
    crops = LabelledCrops(images, tile_size=32, seed=0, length=200, augment="none")
    corners = {(int(image[1, 0, 0]), int(image[2, 0, 0])) for image, _ in crops}
    assert corners == {(x, y) for x in range(5) for y in range(3)}


def test_crop_depends_on_seed_and_index_only(pair: Callable[..., Pair]) -> None:
    images = labelled([pair(random_labels(60, 60, seed=i), str(i)) for i in range(3)])
    first = LabelledCrops(images, tile_size=32, seed=5, length=12)
    second = LabelledCrops(images, tile_size=32, seed=5, length=12)
    expected = {index: second[index] for index in reversed(range(12))}
    loaded = DataLoader(first, batch_size=None, num_workers=2)
    for index, (image, labels) in enumerate(loaded):
        assert torch.equal(image, expected[index][0])
        assert torch.equal(labels, expected[index][1])
    other = LabelledCrops(images, tile_size=32, seed=6, length=12)
    assert not any(torch.equal(first[index][0], other[index][0]) for index in range(12))
    assert len({first[index][0].numpy().tobytes() for index in range(12)}) == 12


def test_larger_images_are_drawn_more_often(pair: Callable[..., Pair]) -> None:
    large, small = np.full((90, 40), 1, np.uint8), np.full((30, 40), 2, np.uint8)
    images = labelled([pair(large, "large"), pair(small, "small")])
    crops = LabelledCrops(images, tile_size=16, seed=0, length=400, augment="none")
    share = np.mean([int(labels[0, 0]) == 1 for _, labels in crops])
    assert share == pytest.approx(0.75, abs=0.08)


def test_image_smaller_than_the_tile_is_reflected(pair: Callable[..., Pair]) -> None:
    labels = random_labels(5, 40)
    crops = LabelledCrops(labelled([pair(labels)]), tile_size=16, seed=0, length=5, augment="none")
    for image, found in crops:
        assert found.shape == (16, 16)
        assert torch.equal(image[0].long(), found)
        assert image[2, :, 0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1]


def test_crops_of_nothing_and_unknown_policies_are_errors(pair: Callable[..., Pair]) -> None:
    with pytest.raises(InputError, match="no labelled image"):
        LabelledCrops(labelled([]), tile_size=8, seed=0, length=1)
    images = labelled([pair(random_labels(10, 10))])
    with pytest.raises(InputError, match="'wild': choose one of none, paper, default"):
        LabelledCrops(images, tile_size=8, seed=0, length=1, augment="wild")
