"""Artefacts of slides, painted into tiles of real tissue at 0.25 um/px.

Each is a function of a tile and of a random generator, and gives the tile with the artefact and
where it is. Light is absorbed, so that ink and folds add up in optical density; what lies out of
the plane of focus is spread over a disc; glass bends light at the edge of a bubble.
"""

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Uint8 = NDArray[np.uint8]
Bool = NDArray[np.bool_]
Float = NDArray[np.floating]
Painted = tuple[Uint8, Bool]

_INKS = np.array([[1.1, 0.8, 0.25], [0.9, 0.25, 0.8], [0.15, 0.9, 0.8], [1.0, 1.0, 1.0]])
"""Optical densities in red, green and blue of blue, green, red and black ink."""

_H, _E = np.array([0.65, 0.70, 0.29]), np.array([0.07, 0.99, 0.11])
_STAINS = {
    "DAB": (_H, np.array([0.27, 0.57, 0.78])),
    "trichrome": (np.array([0.60, 0.70, 0.35]), np.array([0.80, 0.55, 0.10])),
    "PAS": (np.array([0.65, 0.70, 0.29]), np.array([0.18, 0.91, 0.36])),
}
"""Optical densities of what stands for haematoxylin and for eosin in other stains."""


def pen(tile: Uint8, random: np.random.Generator) -> Painted:
    """The border of a stroke on the cover slip: out of focus, streaky, tissue below shines through.

    A stroke is a millimetre wide, so that a tile of 64 um sees its border or nothing else.
    """
    there = _half_plane(tile, random, wave=15.0)
    soft = ndimage.gaussian_filter(there.astype(np.float32), random.uniform(4, 12))
    streaks = ndimage.gaussian_filter(random.normal(size=there.shape), (3, 40))
    ink = _INKS[random.integers(len(_INKS))] * random.uniform(0.4, 1.2)
    amount = soft * (1 + 0.25 * streaks / streaks.std())
    below = _spread(_density(tile), random.uniform(0, 2))
    density = np.where(there[..., None], below, _density(tile))
    return _to_pixels(density + np.maximum(amount, 0)[..., None] * ink), there


def motion_blur(tile: Uint8, random: np.random.Generator) -> Painted:
    """The stage moved while the line was taken: blur along one direction."""
    length, angle = random.uniform(9, 21), random.uniform(0, np.pi)
    reach = int(length)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    for step in np.linspace(-length / 2, length / 2, 4 * reach):
        y, x = reach + step * np.sin(angle), reach + step * np.cos(angle)
        kernel[round(y), round(x)] += 1
    blurred = _filtered(tile, kernel / kernel.sum())
    return _with_noise(blurred, random), np.ones(tile.shape[:2], np.bool_)


def out_of_focus(tile: Uint8, random: np.random.Generator) -> Painted:
    """The plane of focus missed by a few micrometres: spread over a disc."""
    blurred = _filtered(tile, _disc(random.uniform(3, 9)))
    return _with_noise(blurred, random), np.ones(tile.shape[:2], np.bool_)


def fold(tile: Uint8, random: np.random.Generator) -> Painted:
    """A band where the section lies double: the densities of two places add up."""
    height, width = tile.shape[:2]
    there = _band(tile, random, half=random.uniform(35, 75))
    other = np.roll(tile[::-1], random.integers(0, height), axis=0)
    other = np.roll(other, random.integers(0, width), axis=1)
    soft = ndimage.gaussian_filter(there.astype(np.float32), 2.0)[..., None]
    upper = _spread(_density(other), random.uniform(1, 4))
    return _to_pixels(_density(tile) + soft * upper), there


def air_bubble(tile: Uint8, random: np.random.Generator) -> Painted:
    """The rim of a bubble under the cover slip: dark where light is bent away, blurred within."""
    distance = _to_circle(tile, random, radius=random.uniform(150, 500))
    inside = distance < 0
    width = random.uniform(6, 16)
    rim = np.exp(-((distance / width) ** 2))
    bright = np.exp(-(((distance + 2.2 * width) / width) ** 2))
    within = _spread(_density(tile), random.uniform(3, 7)) * random.uniform(0.75, 0.95)
    density = np.where(inside[..., None], within, _density(tile))
    density = density + (0.9 * rim - 0.12 * bright)[..., None]
    return _to_pixels(density), inside | (rim > 0.1)


def other_stain(tile: Uint8, random: np.random.Generator) -> Painted:
    """What haematoxylin and eosin have dyed, dyed by those of another stain."""
    first, second = list(_STAINS.values())[random.integers(len(_STAINS))]
    third = np.cross(_H, _E)
    mixed = np.stack([_unit(_H), _unit(_E), _unit(third)])
    amounts = _density(tile) @ np.linalg.inv(mixed)
    dyes = np.stack([_unit(first), _unit(second), _unit(third)])
    strength = random.uniform(0.7, 1.3, size=3)
    return _to_pixels(amounts * strength @ dyes), np.ones(tile.shape[:2], np.bool_)


def jpeg_blocks(tile: Uint8, random: np.random.Generator) -> Painted:
    """Compressed far too much once."""
    file = io.BytesIO()
    Image.fromarray(tile).save(file, "JPEG", quality=int(random.integers(5, 16)))
    return np.array(Image.open(file)), np.ones(tile.shape[:2], np.bool_)


ARTEFACTS: dict[str, Callable[[Uint8, np.random.Generator], Painted]] = {
    "pen": pen,
    "motion blur": motion_blur,
    "out of focus": out_of_focus,
    "fold": fold,
    "air bubble": air_bubble,
    "other stain": other_stain,
    "JPEG blocks": jpeg_blocks,
}


def _density(tile: Uint8) -> Float:
    """Optical density of each colour."""
    return -np.log10((tile.astype(np.float64) + 1) / 256)


def _to_pixels(density: Float) -> Uint8:
    return np.clip(np.rint(256 * 10**-density - 1), 0, 255).astype(np.uint8)


def _unit(vector: Float) -> Float:
    return vector / np.linalg.norm(vector)


def _disc(radius: float) -> Float:
    reach = int(np.ceil(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = np.clip(radius + 0.5 - np.hypot(y, x), 0, 1)
    return disc / disc.sum()


def _filtered(values: NDArray[np.generic], kernel: Float) -> Float:
    planes = [
        ndimage.convolve(values[..., i].astype(np.float64), kernel, mode="reflect")
        for i in range(3)
    ]
    return np.stack(planes, axis=2)


def _spread(density: Float, radius: float) -> Float:
    """Out of focus by so many pixels."""
    return density if radius < 1 else _filtered(density, _disc(radius))


def _with_noise(pixels: Float, random: np.random.Generator) -> Uint8:
    """What a camera adds after the light has come: without it, blur would be known by that."""
    return np.clip(np.rint(pixels + random.normal(0, 1.0, pixels.shape)), 0, 255).astype(np.uint8)


def _half_plane(tile: Uint8, random: np.random.Generator, wave: float) -> Bool:
    """From a fifth to all of a tile, on one side of a slightly wavy line."""
    along, across = _axes(tile, random)
    border = wave * np.sin(along / random.uniform(60, 200) + random.uniform(0, 6))
    there: Bool = across < np.quantile(across, random.uniform(0.2, 1.0)) + border
    return there


def _band(tile: Uint8, random: np.random.Generator, half: float) -> Bool:
    along, across = _axes(tile, random)
    middle = np.quantile(across, random.uniform(0.3, 0.7))
    bend = 12 * np.sin(along / random.uniform(50, 150) + random.uniform(0, 6))
    there: Bool = np.abs(across - middle - bend) < half
    return there


def _to_circle(tile: Uint8, random: np.random.Generator, radius: float) -> Float:
    """Distance to a circle through the middle half of the tile, negative inside."""
    y, x = np.mgrid[: tile.shape[0], : tile.shape[1]]
    through = random.uniform(0.25, 0.75, size=2) * tile.shape[:2]
    angle = random.uniform(0, 2 * np.pi)
    centre = through + radius * np.array([np.sin(angle), np.cos(angle)])
    return np.hypot(y - centre[0], x - centre[1]) - radius


def _axes(tile: Uint8, random: np.random.Generator) -> tuple[Float, Float]:
    y, x = np.mgrid[: tile.shape[0], : tile.shape[1]]
    angle = random.uniform(0, 2 * np.pi)
    return np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
