"""Turning and magnifying: image and labels stay together, and no border is made up."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from genselfdiff.data.labelled.augment import POLICIES, Policy
from genselfdiff.data.labelled.crops import LabelledCrops
from genselfdiff.data.labelled.images import LabelledImages
from genselfdiff.data.labelled.pairs import Pair
from genselfdiff.data.labelled.warp import Warp

Uint8 = NDArray[np.uint8]


def place_image(height: int, width: int) -> Uint8:
    """Red grows with x, green with y: a crop of it tells where each of its pixels comes from."""
    y, x = np.indices((height, width))
    return np.stack([x, y, 0 * x], axis=-1).astype(np.uint8)


def test_identity_gives_the_same_bits() -> None:
    rng = np.random.default_rng(0)
    window = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    labels = rng.integers(0, 9, (64, 64)).astype(np.uint8)
    warp = Warp(scale=1.0, degrees=0.0)
    assert warp.window_side(64) == 64
    crop, found = warp.apply(window, labels, 64)
    np.testing.assert_array_equal(crop, window.transpose(2, 0, 1))
    np.testing.assert_array_equal(found, labels)


def test_quarter_turns_are_counter_clockwise_and_exact() -> None:
    rng = np.random.default_rng(1)
    window = rng.integers(0, 256, (65, 65, 3)).astype(np.uint8)
    warp = Warp(scale=1.0, degrees=90.0)
    assert warp.window_side(65) - 65 <= 1  # the cosine of 90 degrees is not quite 0
    crop, found = warp.apply(window, window[..., 0], 65)
    np.testing.assert_array_equal(crop, np.rot90(window).transpose(2, 0, 1))
    np.testing.assert_array_equal(found, np.rot90(window[..., 0]))


@pytest.mark.parametrize("scale", [0.8, 1.0, 1.25])
@pytest.mark.parametrize("degrees", [-15.0, 0.0, 7.0])
def test_every_pixel_comes_from_its_place_inside_the_window(scale: float, degrees: float) -> None:
    warp = Warp(scale, degrees)
    side = warp.window_side(100)
    crop, labels = warp.apply(place_image(side, side), place_image(side, side)[..., 0], 100)
    middle = (side - 1) / 2
    angle = np.radians(degrees)
    y, x = (np.indices((100, 100)) - 49.5) / scale
    expected_x = middle + np.cos(angle) * x - np.sin(angle) * y
    expected_y = middle + np.sin(angle) * x + np.cos(angle) * y
    # Grey levels are whole numbers, so that a place is told to half a pixel.
    assert np.abs(crop[0] - expected_x).max() <= 0.501
    assert np.abs(crop[1] - expected_y).max() <= 0.501
    assert np.abs(labels - expected_x).max() <= 0.501
    for places in (expected_x, expected_y):
        assert places.min() >= -1e-9 and places.max() <= side - 1 + 1e-9
    # A window smaller by 2 would not do.
    assert max(expected_x.max(), expected_y.max()) > side - 2.5


def test_labels_drawn_into_the_image_stay_on_it() -> None:
    labels = np.kron(np.random.default_rng(3).integers(0, 2, (14, 14)), np.ones((30, 30)))
    labels = labels.astype(np.uint8)
    image = np.repeat(200 * labels[..., None], 3, axis=-1)
    edges = 0.0
    for seed in range(10):
        warp = POLICIES["default"].draw_warp(np.random.default_rng(seed))
        assert warp is not None
        side = warp.window_side(256)
        crop, found = warp.apply(image[:side, :side], labels[:side, :side], 256)
        # Half of the way between the grey levels is where the border of the labels must be.
        assert ((crop[1] > 100) != found).mean() < 0.001
        edges += ((crop[1] > 0) & (crop[1] < 200)).mean()
    assert edges / 10 > 0.02  # the images did have borders between pixels


def test_scale_and_rotation_are_drawn_evenly_in_their_ranges() -> None:
    generator = np.random.default_rng(0)
    warps = [POLICIES["default"].draw_warp(generator) for _ in range(2000)]
    scales = np.array([warp.scale for warp in warps if warp])
    degrees = np.array([warp.degrees for warp in warps if warp])
    for values, low, high in ((np.log(scales), np.log(0.8), np.log(1.25)), (degrees, -15, 15)):
        assert values.min() >= low and values.max() <= high
        counts, _ = np.histogram(values, 5, (low, high))
        assert counts.min() > 340 and counts.max() < 460


def test_without_scale_and_rotation_nothing_is_drawn_or_resampled(
    monkeypatch: pytest.MonkeyPatch, pair: Callable[..., Pair]
) -> None:
    generator = np.random.default_rng(0)
    before = generator.bit_generator.state
    monkeypatch.setattr(Warp, "apply", lambda *arguments: pytest.fail("resampled"))
    for policy in (POLICIES["none"], POLICIES["paper"], Policy(flips=True, stain_gain=2)):
        assert policy.draw_warp(generator) is None
    assert generator.bit_generator.state == before
    images = LabelledImages([pair(np.zeros((40, 40), np.uint8))])
    for name in ("none", "paper"):
        assert LabelledCrops(images, tile_size=32, seed=0, length=1, augment=name)[0]


# Crops, whose images (the fixture `pair`) have x in green and y in blue.


@pytest.fixture
def only_warp(monkeypatch: pytest.MonkeyPatch) -> Policy:
    """A policy "warp" of scale and rotation alone."""
    policy = Policy(scale=(0.8, 1.25), rotation=15.0)
    monkeypatch.setitem(POLICIES, "warp", policy)
    return policy


def test_crops_are_of_the_image_wherever_it_goes_on(
    pair: Callable[..., Pair], only_warp: Policy
) -> None:
    images = LabelledImages([pair(np.zeros((200, 220), np.uint8))])
    centres = []
    for crop, _ in LabelledCrops(images, tile_size=64, seed=0, length=600, augment="warp"):
        x, y = crop[1].double().numpy(), crop[2].double().numpy()
        # Reflected anywhere, the steps from pixel to pixel would change their sign.
        for places in (x, y):
            along, down = places[:, -1] - places[:, 0], places[-1] - places[0]
            assert np.ptp(along) <= 2 and np.ptp(down) <= 2
        centres.append((x.mean(), y.mean()))
    # The largest window has 99 pixels, the smallest 52: every place from half of that on is met.
    for found, extent in zip(np.array(centres).T, (220, 200), strict=True):
        assert found.min() < 38 and found.max() > extent - 38
        counts, _ = np.histogram(found, 4, (50, extent - 50))
        assert counts.min() > 0.75 * counts.mean() and counts.max() < 1.25 * counts.mean()


def test_small_images_are_shown_whole_with_reflections_around(
    pair: Callable[..., Pair], only_warp: Policy
) -> None:
    labels = np.random.default_rng(0).integers(0, 5, (40, 44)).astype(np.uint8)
    crops = LabelledCrops(
        LabelledImages([pair(labels)]), tile_size=64, seed=0, length=20, augment="warp"
    )
    for crop, found in crops:
        x, y = crop[1], crop[2]
        assert (x.min(), y.min()) == (0, 0) and (x.max(), y.max()) == (43, 39)
        nearest = labels[y.round().long(), x.round().long()]
        # Where a place is half way between two pixels, either may count as the nearest.
        assert (nearest == found.numpy()).mean() > 0.9
