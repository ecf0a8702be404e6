from itertools import combinations

import numpy as np
import pytest
from scipy import ndimage
from skimage.color import rgb2lab

from genselfdiff.errors import InputError
from genselfdiff.evaluation.outlines_picture import (
    BOTH_COLOUR,
    PREDICTION_COLOUR,
    TRUTH_COLOUR,
    draw_outlines,
)

SEVERE = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
"""Colours as people with these kinds of vision see them: Machado et al. 2009, in linear RGB."""


def lab(colour: tuple[int, int, int], vision: str) -> np.ndarray:
    part = np.array(colour) / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.asarray(SEVERE[vision]) @ linear, 0, 1)
    coded = np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)
    return rgb2lab(coded.reshape(1, 1, 3)).ravel()


@pytest.mark.parametrize("vision", SEVERE)
def test_everybody_can_tell_the_colours_apart(vision):
    nuclei, stroma = (90, 60, 140), (225, 170, 200)
    for a, b in (
        *combinations((TRUTH_COLOUR, PREDICTION_COLOUR, BOTH_COLOUR), 2),
        (TRUTH_COLOUR, nuclei),
        (TRUTH_COLOUR, stroma),
        (PREDICTION_COLOUR, nuclei),
        (PREDICTION_COLOUR, stroma),
    ):
        assert np.linalg.norm(lab(a, vision) - lab(b, vision)) > 30, (a, b)


def test_every_pixel_has_the_colour_of_its_outlines():
    random = np.random.default_rng(0)
    image = random.integers(60, 200, (40, 50, 3)).astype(np.uint8)
    sides = [np.kron(random.integers(0, 3, (8, 10)), np.ones((5, 5), np.int64)) for _ in range(2)]
    picture = draw_outlines(image, *sides)
    cross = ndimage.generate_binary_structure(2, 1)
    edges = [
        (side > 0)
        & (
            (ndimage.maximum_filter(side, footprint=cross, mode="nearest") != side)
            | (ndimage.minimum_filter(side, footprint=cross, mode="nearest") != side)
        )
        for side in sides
    ]
    expected = np.where(edges[0][..., None], TRUTH_COLOUR, image)
    expected = np.where(edges[1][..., None], PREDICTION_COLOUR, expected)
    expected = np.where((edges[0] & edges[1])[..., None], BOTH_COLOUR, expected)
    np.testing.assert_array_equal(picture, expected)
    assert picture.dtype == np.uint8


def test_wider_outlines_grow_inwards():
    labels = np.zeros((12, 12), np.uint8)
    labels[1:11, 1:11] = 1
    image = np.zeros((12, 12, 3), np.uint8)
    picture = draw_outlines(image, labels, np.zeros_like(labels), width=3)
    inner = ndimage.binary_erosion(labels, iterations=3)
    np.testing.assert_array_equal((picture == TRUTH_COLOUR).all(2), (labels > 0) & ~inner)


def test_ignored_pixels_are_greyed_and_have_no_outlines():
    image = np.full((6, 6, 3), 200, np.uint8)
    truth = np.zeros((6, 6), np.uint8)
    truth[:, 3:] = 255
    prediction = np.zeros((6, 6), np.uint8)
    prediction[2:4, 4:] = 1
    picture = draw_outlines(image, truth, prediction, ignore_label=255)
    assert (picture[:, :3] == 200).all()
    assert (picture[:, 3:] == 164).all()
    assert (image == 200).all()


def test_what_does_not_fit():
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(InputError, match="prediction"):
        draw_outlines(image, np.zeros((4, 4), int), np.zeros((4, 5), int))
