"""Augmentation of labelled crops: policies, each of which is a table of settings.

"paper" is the published recipe; "default" adds turns by any angle and magnification, and jitters
the two stains themselves, which is how slides of different laboratories differ; "strong" does the
same by more, for a model that shall work on slides of laboratories and scanners it has never seen.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genselfdiff.data.labelled.warp import Warp
from genselfdiff.errors import InputError

Image = NDArray[np.uint8]
Labels = NDArray[np.uint8]
Range = tuple[float, float]

# Optical densities of haematoxylin, eosin and DAB in red, green and blue (Ruifrok and Johnston
# 2001), rows of unit length. The third stain carries what the first two do not explain.
_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_STAINS /= np.linalg.norm(_STAINS, axis=1, keepdims=True)
_UNMIX = np.linalg.inv(_STAINS)

_DENSITY = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)
"""Optical density of each grey level."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Policy:
    """What is done to a crop, in the order of the attributes; the defaults do nothing.

    Attributes:
        scale: magnification, evenly drawn from this range on a logarithmic scale.
        rotation: turn about the middle, evenly drawn from -``rotation``..``rotation`` degrees.
            Together with ``scale`` one resampling; none where neither is asked for.
        flips: mirror left to right with probability 0.5, and top to bottom with 0.5.
        quarter_turns: turn by 0, 90, 180 or 270 degrees, each as often; a crop that is not square
            by 0 or 180.
        stain_gain: the density of each stain (haematoxylin, eosin, rest) is multiplied by
            1/``stain_gain``..``stain_gain``, evenly drawn on a logarithmic scale.
        stain_shift: to it is added -``stain_shift``..``stain_shift`` (optical density, natural
            logarithm), evenly drawn, on glass as well.
        blur: probability of `blur`.
        brightness_contrast: probability of the next two, in either order.
        brightness: factor on the values, evenly drawn from this range.
        contrast: factor on their distance from the mean luminance, evenly drawn from this range.
    """

    scale: Range = (1.0, 1.0)
    rotation: float = 0.0
    flips: bool = False
    quarter_turns: bool = False
    stain_gain: float = 1.0
    stain_shift: float = 0.0
    blur: float = 0.0
    brightness_contrast: float = 0.0
    brightness: Range = (1.0, 1.0)
    contrast: Range = (1.0, 1.0)

    def draw_warp(self, generator: np.random.Generator) -> Warp | None:
        """How a crop is to be resampled, which says how much of the image it needs; or None."""
        if self.scale == (1.0, 1.0) and not self.rotation:
            return None
        low, high = self.scale
        return Warp(
            math.exp(generator.uniform(math.log(low), math.log(high))),
            generator.uniform(-self.rotation, self.rotation),
        )

    def apply(
        self, image: Image, labels: Labels, generator: np.random.Generator
    ) -> tuple[Image, Labels]:
        """Do all but the warp to one crop.

        Args:
            image: uint8 (3, H, W), RGB.
            labels: uint8 (H, W); moved like the image, values untouched.
            generator: source of all randomness.

        Returns:
            The changed image and labels, in the types of the arguments; the arguments stay as they
            are, and the results may be views of them.
        """
        if self.flips:
            image, labels = _flip(image, labels, generator)
        if self.quarter_turns:
            turns = int(generator.integers(4))
            # A quarter turn would change the shape of a crop that is not square.
            if image.shape[1] == image.shape[2] or turns % 2 == 0:
                image, labels = np.rot90(image, turns, axes=(1, 2)), np.rot90(labels, turns)
        if self.stain_gain != 1 or self.stain_shift:
            gains = np.exp(generator.uniform(-1, 1, 3) * math.log(self.stain_gain))
            shifts = generator.uniform(-self.stain_shift, self.stain_shift, 3)
            image = change_stains(image, gains, shifts)
        if self.blur and generator.random() < self.blur:
            image = _to_uint8(blur(image))
        if self.brightness_contrast and generator.random() < self.brightness_contrast:
            image = self._change_brightness_contrast(image, generator)
        return image, labels

    def _change_brightness_contrast(self, image: Image, generator: np.random.Generator) -> Image:
        bright = np.float32(generator.uniform(*self.brightness))
        distance = np.float32(generator.uniform(*self.contrast))
        values = image.astype(np.float32)
        if generator.random() < 0.5:
            return _to_uint8(_contrast(np.clip(values * bright, 0, 255), distance))
        return _to_uint8(np.clip(_contrast(values, distance), 0, 255) * bright)


POLICIES = {
    "none": Policy(),
    "paper": Policy(
        flips=True,
        blur=0.3,
        brightness_contrast=0.3,
        brightness=(0.5, 1.5),
        contrast=(0.6, 1.4),
    ),
    "default": Policy(
        scale=(0.8, 1.25),
        rotation=15.0,
        flips=True,
        quarter_turns=True,
        stain_gain=1.25,
        stain_shift=0.05,
        blur=0.1,
        brightness_contrast=1.0,
        brightness=(0.9, 1.1),
        contrast=(0.9, 1.1),
    ),
    "strong": Policy(
        scale=(0.6, 1.6),
        rotation=45.0,
        flips=True,
        quarter_turns=True,
        stain_gain=1.8,
        stain_shift=0.12,
        blur=0.3,
        brightness_contrast=1.0,
        brightness=(0.75, 1.2),
        contrast=(0.6, 1.3),
    ),
}


def require_policy(name: str) -> Policy:
    """The policy of that name.

    Raises:
        InputError: there is none.
    """
    if name not in POLICIES:
        raise InputError(f"no augmentation {name!r}: choose one of {', '.join(POLICIES)}")
    return POLICIES[name]


def change_stains(image: Image, gains: NDArray[np.float64], shifts: NDArray[np.float64]) -> Image:
    """Unmix an image into stains, multiply and shift their densities, and mix them again.

    This is one 3x3 matrix on the optical densities of the pixels (Ruifrok and Johnston 2001).

    Args:
        image: uint8 (3, H, W), RGB.
        gains, shifts: float64 (3,): of haematoxylin, eosin, and what these two leave over.

    Returns:
        uint8 (3, H, W).
    """
    matrix = -(_UNMIX @ np.diag(gains) @ _STAINS).T.astype(np.float32)
    offset = -(shifts @ _STAINS).astype(np.float32)
    values = matrix @ _DENSITY.take(image).reshape(3, -1)
    values += offset[:, None]
    np.exp(values, out=values)
    values *= 256
    values -= 1
    return _to_uint8(values).reshape(image.shape)


def blur(image: Image) -> NDArray[np.float32]:
    """Gaussian blur, 3x3, sigma 1.0 along x and 2.0 along y; the border is reflected.

    Args:
        image: uint8 (3, H, W).

    Returns:
        float32 (3, H, W), 0 to 255.
    """
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="reflect").astype(np.float32)
    side_x, side_y = np.exp(np.float32(-0.5)), np.exp(np.float32(-0.125))
    along_x = padded[:, :, 1:-1] + side_x * (padded[:, :, :-2] + padded[:, :, 2:])
    along_y = along_x[:, 1:-1] + side_y * (along_x[:, :-2] + along_x[:, 2:])
    blurred: NDArray[np.float32] = along_y / ((1 + 2 * side_x) * (1 + 2 * side_y))
    return blurred


def _flip(image: Image, labels: Labels, generator: np.random.Generator) -> tuple[Image, Labels]:
    horizontal, vertical = generator.random(2) < 0.5
    rows, columns = (
        slice(None, None, -1 if vertical else 1),
        slice(None, None, -1 if horizontal else 1),
    )
    return image[:, rows, columns], labels[rows, columns]


def _contrast(values: NDArray[np.float32], factor: np.float32) -> NDArray[np.float32]:
    mean = np.float32(_LUMA @ values.mean(axis=(1, 2)))
    return values * factor + mean * (1 - factor)


def _to_uint8(values: NDArray[np.float32]) -> Image:
    return (np.clip(values, 0, 255) + np.float32(0.5)).astype(np.uint8)
