"""What colours and texture a square of tissue has, in a few numbers."""

import numpy as np
from numpy.typing import NDArray

Uint8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]

STATISTICS = (
    "haematoxylin",
    "eosin",
    "other colour",
    "spread of haematoxylin",
    "spread of eosin",
    "spread of other colour",
    "saturation",
    "gradients",
    "gradients, 2 px",
    "gradients, 4 px",
    "curvature",
    "curvature, 2 px",
    "edges",
    "flat pixels",
    "entropy",
    "direction",
)
"""What each number is: see ``cell_statistics``."""

_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
"""Optical densities in red, green and blue of haematoxylin, eosin and a third dye (Ruifrok and
Johnston 2001)."""

_UNMIXING = np.linalg.inv(_STAINS / np.linalg.norm(_STAINS, axis=1, keepdims=True)).astype(
    np.float32
)
_DENSITY = -np.log10((np.arange(256) + 1) / 256).astype(np.float32)

_EDGE = 20.0
"""Grey levels from one pixel to the next above which there is an edge."""

_FLAT = 1.0
"""Grey levels up to which two neighbours look alike: of blurred pixels more do."""

_BINS = 32
_AT_ONCE = 2**15
"""Pixels that are described at once: few enough to stay in the processor's cache."""
_LEAST = np.float32(1e-3)
"""Added before a logarithm is taken: of something that is all of one grey."""


def cell_statistics(pixels: Uint8, side: int) -> Float32:
    """Describe each cell of an image by itself; nothing outside of a cell counts for it.

    Means and standard deviations (as logarithms) of the optical densities of haematoxylin, eosin
    and what neither explains; mean saturation; logarithms of the mean squared differences of
    neighbours and of the mean squared Laplacian, of grey levels and of means over 2 x 2 and 4 x 4
    of them; shares of neighbours that differ by much and by nothing; entropy of the grey levels in
    bits; and how much more they change along one axis than the other, as a logarithm.

    Args:
        pixels: (h, w, 3) uint8 RGB, h and w multiples of ``side``.
        side: of a cell in pixels, a multiple of 4 and at least 16.

    Returns:
        (h / side, w / side, n) float32, a number for each of ``STATISTICS``.
    """
    rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
    cells = pixels.reshape(rows, side, columns, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
    found = np.empty((len(cells), len(STATISTICS)), np.float32)
    at_once = max(_AT_ONCE // side**2, 1)
    for first in range(0, len(cells), at_once):
        found[first : first + at_once] = _of_cells(cells[first : first + at_once])
    return found.reshape(rows, columns, -1)


def _of_cells(cells: Uint8) -> Float32:
    """(n, side, side, 3) to (n, statistics)."""
    count, side = cells.shape[:2]
    stains = (_DENSITY[cells].reshape(-1, 3) @ _UNMIXING).reshape(count, side**2, 3)
    planes = [np.ascontiguousarray(cells[..., i], np.float32) for i in range(3)]
    largest = np.maximum(np.maximum(planes[0], planes[1]), planes[2])
    smallest = np.minimum(np.minimum(planes[0], planes[1]), planes[2])
    grey = (planes[0] + planes[1] + planes[2]) * np.float32(1 / 3)
    halved = _halved(grey)
    across, down = np.abs(np.diff(grey, axis=2)), np.abs(np.diff(grey, axis=1))
    return np.column_stack(
        (
            stains.mean(axis=1),
            np.log(stains.std(axis=1) + _LEAST),
            _mean((largest - smallest) / np.maximum(largest, 1)),
            _gradients(grey),
            _gradients(halved),
            _gradients(_halved(halved)),
            _curvature(grey),
            _curvature(halved),
            (_mean(across > _EDGE) + _mean(down > _EDGE)) / 2,
            (_mean(across <= _FLAT) + _mean(down <= _FLAT)) / 2,
            _entropy(grey),
            np.abs(np.log((_mean(across**2) + _LEAST) / (_mean(down**2) + _LEAST))),
        )
    )


def _mean(values: NDArray[np.generic]) -> Float32:
    """Of each cell, (n, h, w) to (n,)."""
    return values.mean(axis=(1, 2), dtype=np.float32)


def _halved(grey: Float32) -> Float32:
    rows = grey[:, ::2] + grey[:, 1::2]
    return (rows[..., ::2] + rows[..., 1::2]) * np.float32(0.25)


def _gradients(grey: Float32) -> Float32:
    across, down = np.diff(grey, axis=2), np.diff(grey, axis=1)
    return np.log(_mean(across**2) + _mean(down**2) + _LEAST)


def _curvature(grey: Float32) -> Float32:
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    return np.log(_mean((around - 4 * grey[:, 1:-1, 1:-1]) ** 2) + _LEAST)


def _entropy(grey: Float32) -> NDArray[np.float64]:
    """Of the grey levels of each cell, in bits."""
    count = len(grey)
    shades = grey.astype(np.intp) // (256 // _BINS) + _BINS * np.arange(count)[:, None, None]
    pixels = np.bincount(shades.ravel(), minlength=_BINS * count).reshape(count, _BINS)
    shares = pixels / (grey.size // count)
    return -(shares * np.log2(shares, where=shares > 0, out=np.zeros_like(shares))).sum(axis=1)
