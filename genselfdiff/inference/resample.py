"""Probability maps brought from the model's resolution to the slide's, a few rows at a time."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Uint8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]

BAND = 32
"""Rows handed out at once: few enough to stay in the processor's cache on ordinary slides."""


class RowResizer:
    """Bilinear interpolation of a (C, h, w) map to (C, H, W) while its rows arrive from the top.

    Pixel centres as in ``torch.nn.functional.interpolate(..., align_corners=False)``: target pixel
    i lies at (i + 0.5) / scale - 0.5 in the source, held inside the map. Every target row is
    computed by itself from two source rows, so the result does not depend on how they arrive.

    Args:
        source: (h, w).
        target: (H, W).
        scale: target pixels per source pixel, about H / h; 1 means (h, w) == (H, W).
        window: (x, y, width, height), the part of the target that is wanted; None: all of it.

    Attributes:
        rows, columns: the source pixels from which the window is made.
    """

    def __init__(
        self,
        source: tuple[int, int],
        target: tuple[int, int],
        scale: float,
        window: tuple[int, int, int, int] | None = None,
    ) -> None:
        x, y, width, height = window or (0, 0, target[1], target[0])
        self._same = source == target and scale == 1
        self._top, self._bottom, self._down = _neighbours(source[0], range(y, y + height), scale)
        left, right, self._across = _neighbours(source[1], range(x, x + width), scale)
        self.rows, self.columns = range(source[0]), range(source[1])
        if window is not None:
            self.rows = range(int(self._top[0]), int(self._bottom[-1]) + 1)
            self.columns = range(int(left[0]), int(right[-1]) + 1)
        self._left, self._right = left - self.columns.start, right - self.columns.start
        self._received = self.rows.start
        self._written = 0
        self._last: Float32 | None = None

    def push(self, rows: Float32) -> Iterator[Float32]:
        """Take the next of ``rows``, (C, n, columns); yield the (C, m, width) that follow."""
        if self._same:
            for begin in range(0, rows.shape[1], BAND):
                yield rows[:, begin : begin + BAND]
            return
        if not rows.shape[1]:  # the first tiles may only count for rows of the next ones
            return
        first = self._received
        if self._last is not None:
            rows = np.concatenate((self._last, rows), axis=1)
            first -= 1
        self._received = first + rows.shape[1]
        ready = int(np.searchsorted(self._bottom, self._received))
        wide: dict[int, Float32] = {}
        for begin in range(self._written, ready, BAND):
            end = min(begin + BAND, ready)
            band = np.empty((rows.shape[0], end - begin, len(self._across)), np.float32)
            for i in range(begin, end):
                top, bottom = int(self._top[i]), int(self._bottom[i])
                wide = {
                    y: wide[y] if y in wide else self._widen(rows[:, y - first])
                    for y in (top, bottom)
                }
                np.multiply(wide[top], 1 - self._down[i], out=band[:, i - begin])
                band[:, i - begin] += wide[bottom] * self._down[i]
            yield band
        self._written = ready
        self._last = rows[:, -1:].copy()

    def _widen(self, row: Float32) -> Float32:
        wide: Float32 = row.take(self._left, axis=1)
        wide *= 1 - self._across
        wide += row.take(self._right, axis=1) * self._across
        return wide


def resize(probabilities: Float32, height: int, width: int, scale: float) -> Float32:
    """(C, h, w) to (C, height, width) float32 as ``RowResizer`` does it."""
    _, source_height, source_width = probabilities.shape
    resizer = RowResizer((source_height, source_width), (height, width), scale)
    return np.concatenate(list(resizer.push(probabilities)), axis=1)


def labels_of(probabilities: Float32) -> Uint8:
    """(C, h, w) probabilities to (h, w) indices of the most probable class, the lowest if equal."""
    labels = np.zeros(probabilities.shape[1:], np.uint8)
    best = probabilities[0]
    for index, plane in enumerate(probabilities[1:], start=1):
        np.copyto(labels, np.uint8(index), where=plane > best)
        if index + 1 < len(probabilities):
            best = np.maximum(best, plane)
    return labels


def _neighbours(
    source: int, target: range, scale: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], Float32]:
    """Source pixels on both sides of each target pixel, and the weight of the second."""
    position = np.clip((np.arange(target.start, target.stop) + 0.5) / scale - 0.5, 0, source - 1)
    before = np.floor(position).astype(np.int64)
    after = np.ceil(position).astype(np.int64)
    return before, after, (position - before).astype(np.float32)
