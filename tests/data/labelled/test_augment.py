"""Augmentation: labels move with their image, colours change as far as the policy says."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import correlate1d
from skimage.color import hed2rgb, rgb2hed

from genselfdiff.choices import AUGMENTATIONS
from genselfdiff.data.labelled.augment import POLICIES, Policy, blur, change_stains, require_policy
from genselfdiff.errors import InputError


def two_class_field(size: int = 48) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Large dark and bright patches without any symmetry, and labels 1 and 0 for them."""
    patches = np.random.default_rng(0).integers(0, 2, (size // 8, size // 8))
    labels = np.kron(patches, np.ones((8, 8))).astype(np.uint8)
    return np.stack([200 - 130 * labels] * 3).astype(np.uint8), labels


@pytest.mark.parametrize("policy", POLICIES)
def test_labels_move_with_the_image(policy: str) -> None:
    image, labels = two_class_field()
    moved = 0
    for seed in range(60):
        changed, found = POLICIES[policy].apply(image, labels, np.random.default_rng(seed))
        assert changed.dtype == np.uint8 and found.dtype == labels.dtype
        dark = changed[0] < (int(changed[0].min()) + int(changed[0].max())) / 2
        # Only a blur, at the patches' borders, may make a pixel change sides.
        assert (dark == found).mean() > 0.97
        moved += not np.array_equal(found, labels)
    assert (moved == 0) if policy == "none" else (moved > 30)


def test_every_placement_is_reached() -> None:
    image, labels = two_class_field()
    for policy, placements in (("none", 1), ("paper", 4), ("default", 8)):
        draws = (
            POLICIES[policy].apply(image, labels, np.random.default_rng(i)) for i in range(150)
        )
        assert len({found.tobytes() for _, found in draws}) == placements


def test_paper_moves_every_pixel_with_its_label_and_leaves_half_of_the_colours() -> None:
    # Neither blur (p 0.3) nor brightness and contrast (p 0.3): 0.49 of the crops.
    labels = np.random.default_rng(1).integers(0, 200, (16, 16)).astype(np.uint8)
    image = np.stack([labels] * 3)
    exact = 0
    for seed in range(400):
        changed, found = POLICIES["paper"].apply(image, labels, np.random.default_rng(seed))
        exact += np.array_equal(changed, np.stack([found] * 3))
    assert exact / 400 == pytest.approx(0.49, abs=0.08)


def published(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], generator: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The paper's augmentation in plain float64, with the draws that seeded runs depend on."""
    values = image.astype(float)
    for axis, mirrored in zip((-1, -2), generator.random(2) < 0.5, strict=True):
        if mirrored:
            values, labels = np.flip(values, axis), np.flip(labels, axis)
    if generator.random() < 0.3:
        values = np.floor(gaussian_3x3(values) + 0.5)
    if generator.random() < 0.3:
        bright, distance = generator.uniform(0.5, 1.5), generator.uniform(0.6, 1.4)

        def contrast(values: NDArray[np.float64]) -> NDArray[np.float64]:
            mean = np.tensordot([0.299, 0.587, 0.114], values.mean(axis=(1, 2)), 1)
            return mean + (values - mean) * distance

        steps = [lambda values: values * bright, contrast]
        for step in steps if generator.random() < 0.5 else steps[::-1]:
            values = np.clip(step(values), 0, 255)
        values = np.floor(values + 0.5)
    return values.astype(np.uint8), labels


def gaussian_3x3(values: NDArray[np.float64]) -> NDArray[np.float64]:
    for axis, sigma in ((2, 1.0), (1, 2.0)):
        side = np.exp(-0.5 / sigma**2)
        weights = np.array([side, 1, side]) / (1 + 2 * side)
        values = correlate1d(values, weights, axis, mode="mirror")
    return values


def test_paper_is_the_published_recipe() -> None:
    image = np.random.default_rng(2).integers(0, 256, (3, 24, 24)).astype(np.uint8)
    labels = image[0] // 64
    assert POLICIES["paper"].draw_warp(np.random.default_rng(0)) is None
    for seed in range(200):
        changed, found = POLICIES["paper"].apply(image, labels, np.random.default_rng(seed))
        expected, moved = published(image, labels, np.random.default_rng(seed))
        np.testing.assert_array_equal(found, moved)
        # What is half way between two grey levels in float64 may be a level apart in float32.
        assert np.abs(changed.astype(int) - expected).max() <= 1
        assert (changed != expected).mean() < 0.005


def test_arguments_stay_as_they_are_and_draws_repeat() -> None:
    image, labels = two_class_field()
    before = image.copy(), labels.copy()
    for policy in POLICIES:
        first = POLICIES[policy].apply(image, labels, np.random.default_rng(5))
        second = POLICIES[policy].apply(image, labels, np.random.default_rng(5))
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_array_equal(first[1], second[1])
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(labels, before[1])


def test_none_changes_nothing() -> None:
    image, labels = two_class_field()
    changed, found = POLICIES["none"].apply(image, labels, np.random.default_rng(0))
    np.testing.assert_array_equal(changed, image)
    np.testing.assert_array_equal(found, labels)


def test_crop_that_is_not_square_keeps_its_shape() -> None:
    image, labels = np.zeros((3, 10, 20), np.uint8), np.zeros((10, 20), np.uint8)
    for seed in range(20):
        changed, found = POLICIES["default"].apply(image, labels, np.random.default_rng(seed))
        assert changed.shape == (3, 10, 20) and found.shape == (10, 20)


def test_blur_is_the_published_kernel() -> None:
    image = np.zeros((3, 5, 5), np.uint8)
    image[:, 2, 2] = 255
    x, y = np.exp(-0.5 * np.array([-1, 0, 1]) ** 2), np.exp(-0.125 * np.array([-1, 0, 1]) ** 2)
    kernel = np.outer(y / y.sum(), x / x.sum())
    np.testing.assert_allclose(blur(image)[1, 1:4, 1:4], 255 * kernel, rtol=1e-5)


def test_stain_jitter_keeps_white_white_and_changes_the_balance_of_the_stains() -> None:
    stains = np.array([[102, 81, 147], [230, 110, 190]], np.uint8)  # haematoxylin, eosin
    image = np.stack([np.full((2, 8), 255, np.uint8)] * 3)
    image[:, 0, :4], image[:, 0, 4:] = stains[0][:, None], stains[1][:, None]
    policy = Policy(stain_gain=1.25, stain_shift=0.05)
    ratios, whites = [], []
    for seed in range(100):
        changed, _ = policy.apply(image, image[0], np.random.default_rng(seed))
        density = -np.log((changed.astype(float) + 1) / 256)
        ratios.append(density[0, 0, 0] / density[1, 0, 7])
        whites.append(changed[:, 1].min())
    assert min(whites) > 215
    assert 0.1 < np.std(ratios) / np.mean(ratios) < 0.3


def test_stains_are_changed_in_the_space_of_ruifrok_and_johnston() -> None:
    image = np.random.default_rng(0).integers(20, 230, (3, 6, 6)).astype(np.uint8)
    gains, shifts = np.array([0.9, 1.2, 1.1]), np.array([0.02, -0.03, 0.01])
    changed = change_stains(image, gains, shifts)
    concentrations = rgb2hed((image.transpose(1, 2, 0) + 1.0) / 256)
    # skimage counts densities in units of log(1e-6) and cuts concentrations below 0: only pixels
    # that are a mixture of the stains can be compared.
    unit = -np.log(1e-6)
    mixed = (concentrations > 0).all(-1)
    moved = hed2rgb(concentrations * gains + shifts / unit).transpose(2, 0, 1) * 256 - 1
    assert mixed.sum() > 3
    np.testing.assert_allclose(changed[:, mixed], moved[:, mixed], atol=0.51)


def test_unknown_policy_is_an_error() -> None:
    assert require_policy("paper") is POLICIES["paper"]
    assert tuple(POLICIES) == AUGMENTATIONS
    with pytest.raises(InputError, match="choose one of none, paper, default, strong"):
        require_policy("mixup")
