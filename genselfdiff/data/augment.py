"""Augmentation of labelled crops: named policies, applied to image and labels together.

"paper" is the published recipe; "default" adds quarter turns and jitters the two stains
themselves, which is how slides of different laboratories differ.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from genselfdiff.errors import InputError

Image = NDArray[np.uint8]
Labels = NDArray[np.integer]

# Optical densities of haematoxylin, eosin and DAB in red, green and blue (Ruifrok and Johnston
# 2001), rows of unit length. The third stain carries what the first two do not explain.
_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_STAINS /= np.linalg.norm(_STAINS, axis=1, keepdims=True)
_UNMIX = np.linalg.inv(_STAINS)

_DENSITY = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)
"""Optical density of each grey level."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def augment(
    policy: str, image: Image, labels: Labels, generator: np.random.Generator
) -> tuple[Image, Labels]:
    """Apply the policy ``"none"``, ``"paper"`` or ``"default"`` to one crop.

    Args:
        policy: name of the policy.
        image: uint8 (3, H, W), RGB.
        labels: integers (H, W); moved like the image, values untouched.
        generator: source of all randomness.

    Returns:
        The changed image and labels, in the types of the arguments; the arguments stay as they are.

    Raises:
        InputError: no such policy.
    """
    require_policy(policy)
    return POLICIES[policy](image, labels, generator)


def require_policy(policy: str) -> None:
    """Raise InputError unless ``policy`` is the name of one."""
    if policy not in POLICIES:
        raise InputError(f"no augmentation {policy!r}: choose one of {', '.join(POLICIES)}")


def _none(image: Image, labels: Labels, generator: np.random.Generator) -> tuple[Image, Labels]:
    return image, labels


def _paper(image: Image, labels: Labels, generator: np.random.Generator) -> tuple[Image, Labels]:
    image, labels = _flip(image, labels, generator)
    if generator.random() < 0.3:
        image = _to_uint8(blur(image))
    if generator.random() < 0.3:
        image = _brightness_contrast(image, generator, (0.5, 1.5), (0.6, 1.4))
    return image, labels


def _default(image: Image, labels: Labels, generator: np.random.Generator) -> tuple[Image, Labels]:
    image, labels = _flip(image, labels, generator)
    turns = int(generator.integers(4))
    # A quarter turn would change the shape of a crop that is not square.
    if image.shape[1] == image.shape[2] or turns % 2 == 0:
        image, labels = np.rot90(image, turns, axes=(1, 2)), np.rot90(labels, turns)
    image = jitter_stains(image, generator)
    image = _brightness_contrast(image, generator, (0.9, 1.1), (0.9, 1.1))
    if generator.random() < 0.1:
        image = _to_uint8(blur(image))
    return image, labels


POLICIES: dict[str, Callable[[Image, Labels, np.random.Generator], tuple[Image, Labels]]] = {
    "none": _none,
    "paper": _paper,
    "default": _default,
}


def _flip(image: Image, labels: Labels, generator: np.random.Generator) -> tuple[Image, Labels]:
    horizontal, vertical = generator.random(2) < 0.5
    rows, columns = (
        slice(None, None, -1 if vertical else 1),
        slice(None, None, -1 if horizontal else 1),
    )
    return image[:, rows, columns], labels[rows, columns]


def jitter_stains(image: Image, generator: np.random.Generator) -> Image:
    """Scale each stain's density by 0.8..1.25 and shift it by up to 0.05.

    Unmixing, scaling and mixing are one 3x3 matrix on the optical densities of the pixels.
    """
    gains = np.exp(generator.uniform(-1, 1, 3) * np.log(1.25))
    shifts = generator.uniform(-0.05, 0.05, 3)
    matrix = (_UNMIX @ np.diag(gains) @ _STAINS).T.astype(np.float32)
    offset = (shifts @ _STAINS).astype(np.float32)
    density = _DENSITY[image].reshape(3, -1)
    changed = np.exp(-(matrix @ density + offset[:, None])) * 256 - 1
    return _to_uint8(changed).reshape(image.shape)


def _brightness_contrast(
    image: Image,
    generator: np.random.Generator,
    brightness: tuple[float, float],
    contrast: tuple[float, float],
) -> Image:
    """Multiply the values, and their distance from the mean luminance, in random order."""
    bright = np.float32(generator.uniform(*brightness))
    distance = np.float32(generator.uniform(*contrast))
    values = image.astype(np.float32)
    if generator.random() < 0.5:
        return _to_uint8(_contrast(np.clip(values * bright, 0, 255), distance))
    return _to_uint8(np.clip(_contrast(values, distance), 0, 255) * bright)


def _contrast(values: NDArray[np.float32], factor: np.float32) -> NDArray[np.float32]:
    mean = np.float32(_LUMA @ values.mean(axis=(1, 2)))
    return values * factor + mean * (1 - factor)


def blur(image: Image) -> NDArray[np.float32]:
    """Gaussian blur, 3x3, sigma 1.0 along x and 2.0 along y; the border is reflected."""
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="reflect").astype(np.float32)
    side_x, side_y = np.exp(np.float32(-0.5)), np.exp(np.float32(-0.125))
    along_x = padded[:, :, 1:-1] + side_x * (padded[:, :, :-2] + padded[:, :, 2:])
    along_y = along_x[:, 1:-1] + side_y * (along_x[:, :-2] + along_x[:, 2:])
    blurred: NDArray[np.float32] = along_y / ((1 + 2 * side_x) * (1 + 2 * side_y))
    return blurred


def _to_uint8(values: NDArray[np.float32]) -> Image:
    return (np.clip(values, 0, 255) + np.float32(0.5)).astype(np.uint8)
