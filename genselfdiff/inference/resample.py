"""Probability maps brought from the model's resolution to the slide's, block by block."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

Uint8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]

BAND = 32
"""Rows interpolated at once: few enough to stay in the processor's cache."""


class RowResizer:
    """Bilinear interpolation of a (C, h, w) map to (C, H, W) while its rows arrive from the top.

    Pixel centres as in ``torch.nn.functional.interpolate(..., align_corners=False)``: target pixel
    i lies at (i + 0.5) / scale - 0.5 in the source, held inside the map. Every target pixel is
    computed by itself from four source pixels, so the result does not depend on how they arrive.

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
        self._left, self._right, self._across = _neighbours(source[1], range(x, x + width), scale)
        self.rows, self.columns = range(source[0]), range(source[1])
        if window is not None:
            self.rows = range(int(self._top[0]), int(self._bottom[-1]) + 1)
            self.columns = range(int(self._left[0]), int(self._right[-1]) + 1)
        self._received = self.rows.start
        self._written = 0
        self._last: Float32 | None = None

    def push(self, blocks: Iterable[Float32]) -> Iterator[Float32]:
        """Take the next n rows as blocks from left to right; yield the m rows that follow, so too.

        Args:
            blocks: (C, n, w), all of the source's columns together.

        Yields:
            (C, m, W), all of the window's columns together; nothing where no row follows.
        """
        received, row, x, done = self._received, self._received, self.columns.start, 0
        corner: Float32 | None = None
        for block in blocks:
            if self._same or not block.size:
                if block.size:
                    yield block
                continue
            if self._last is None:
                self._last = np.empty((len(block), len(self.columns)), np.float32)
            edge = self._last[:, x - self.columns.start :][:, : block.shape[2]]
            rows = block
            if received > self.rows.start:
                row = received - 1
                rows = np.concatenate((edge[:, None], block), axis=1)
            edge[:] = block[:, -1]
            self._received = received + block.shape[1]
            begin = x
            if corner is not None:
                begin = x - 1
                rows = np.concatenate((corner, rows), axis=2)
            x += block.shape[2]
            corner = rows[:, :, -1:].copy()
            down = slice(self._written, int(np.searchsorted(self._bottom, self._received)))
            across = slice(done, int(np.searchsorted(self._right, x)))
            if down.start < down.stop and across.start < across.stop:
                yield self._interpolate(rows, row, begin, down, across)
            done = across.stop
        self._written = int(np.searchsorted(self._bottom, self._received))

    def _interpolate(
        self, source: Float32, row: int, column: int, down: slice, across: slice
    ) -> Float32:
        """The target pixels ``down`` x ``across``; ``source`` begins at (row, column)."""
        share = self._across[across]
        wide = source.take(self._left[across] - column, axis=2)
        wide *= 1 - share
        wide += source.take(self._right[across] - column, axis=2) * share
        top, bottom = self._top[down] - row, self._bottom[down] - row
        share = self._down[down, None]
        mixed = np.empty((len(source), len(top), wide.shape[2]), np.float32)
        for i in range(0, len(top), BAND):
            part = mixed[:, i : i + BAND]
            np.multiply(wide[:, top[i : i + BAND]], 1 - share[i : i + BAND], out=part)
            part += wide[:, bottom[i : i + BAND]] * share[i : i + BAND]
        return mixed


def resize(probabilities: Float32, height: int, width: int, scale: float) -> Float32:
    """(C, h, w) to (C, height, width) float32 as ``RowResizer`` does it."""
    _, source_height, source_width = probabilities.shape
    resizer = RowResizer((source_height, source_width), (height, width), scale)
    return next(resizer.push([probabilities]))


def labels_of(probabilities: Float32) -> Uint8:
    """(C, h, w) probabilities to (h, w) indices of the most probable class, the lowest if equal."""
    labels = np.zeros(probabilities.shape[1:], np.uint8)
    best = probabilities[0]
    for index, plane in enumerate(probabilities[1:], start=1):
        # What np.copyto does with "where", several times as fast on bytes.
        labels ^= (labels ^ np.uint8(index)) & np.negative((plane > best).view(np.uint8))
        if index + 1 < len(probabilities):
            best = np.maximum(best, plane)
    return labels


def is_core(probabilities: Float32) -> NDArray[np.bool_]:
    """Where cores of objects are, from their probabilities, of any shape."""
    return probabilities > np.float32(0.5)


def _neighbours(
    source: int, target: range, scale: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], Float32]:
    """Source pixels on both sides of each target pixel, and the weight of the second."""
    position = np.clip((np.arange(target.start, target.stop) + 0.5) / scale - 0.5, 0, source - 1)
    before = np.floor(position).astype(np.int64)
    after = np.ceil(position).astype(np.int64)
    return before, after, (position - before).astype(np.float32)
