"""A slide seen at another resolution, read window by window."""

import math
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from genselfdiff.progress import progress_bar
from genselfdiff.slides.resolution import SAME_SCALE
from genselfdiff.slides.window import check_window

if TYPE_CHECKING:
    from genselfdiff.slides.slide import Slide

Uint8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]

_SOURCE_PIXELS = 2**20
"""Pixels of the level that are resampled in one go: bounds the memory of a large reduction."""

_THREADS = 4
"""At most so many read at once: each holds pixels of its own."""

_BLOCK = 8
"""Pixels computed by one matrix product: few, as a matrix row holds zeros for all but its own."""


_EXACT_STEPS = (2, 4, 8, 16)
"""Of these squares means are computed in 16-bit whole numbers, to the same bits and faster."""


class ScaledView:
    """The slide resampled on a grid anchored at its top-left corner; made by ``Slide.at_mpp``.

    Pixel (i, j) covers the square of ``scale`` level-0 pixels that begins at (i * scale,
    j * scale). It is the mean of what it covers, or interpolated where it is smaller than a stored
    pixel, computed from the same stored pixels whatever window it is read through. At the right
    and bottom the last stored pixel is continued.

    Attributes:
        width, height: size in pixels of the view, at least 1.
        scale: level-0 pixels per pixel of the view.
        level: index of the slide's level that it is made from.
    """

    def __init__(self, slide: "Slide", scale: float) -> None:
        self._slide = slide
        self.scale = scale
        self.width = max(1, round(slide.width / scale))
        self.height = max(1, round(slide.height / scale))
        fine_enough = [
            index
            for index, level in enumerate(slide.levels)
            if level.downsample <= scale * (1 + SAME_SCALE)
        ]
        self.level = fine_enough[-1] if fine_enough else 0
        # Dividing one mpp by another leaves 2.0000000000000004 where 2 is meant.
        step = scale / slide.levels[self.level].downsample
        self._step = round(step) if abs(step - round(step)) < 1e-6 * step else step

    def read(self, x: int, y: int, width: int, height: int) -> Uint8:
        """Read a window, which must lie inside the view, as (height, width, 3) uint8 RGB.

        Raises:
            InputError: the stored pixels are damaged.
            ValueError: the window is empty or leaves the view.
        """
        check_window(x, y, width, height, self.width, self.height)
        level = self._slide.levels[self.level]
        if self._step == 1 and x + width <= level.width and y + height <= level.height:
            return self._slide.read_level(x, y, width, height, self.level)
        window = np.empty((height, width, 3), np.uint8)
        step = int(self._step)
        fits = (x + width) * step <= level.width and (y + height) * step <= level.height
        if self._step in _EXACT_STEPS and fits:
            rows_at_once = max(1, _SOURCE_PIXELS // (width * step * step))
            for top in range(0, height, rows_at_once):
                count = min(rows_at_once, height - top)
                corner = x * step, (y + top) * step
                source = self._slide.read_level(*corner, width * step, count * step, self.level)
                window[top : top + count] = _mean_of_squares(source, step)
            return window
        columns = _Axis(x, width, self._step, level.width)
        # Strips of rows short enough that the pixels under them fit the bound.
        rows_at_once = max(1, int(_SOURCE_PIXELS / columns.length / max(self._step, 1)))
        for top in range(0, height, rows_at_once):
            count = min(rows_at_once, height - top)
            rows = _Axis(y + top, count, self._step, level.height)
            source = self._slide.read_level(
                columns.first, rows.first, columns.length, rows.length, self.level
            )
            upright = rows.mix(source.astype(np.float32))
            sideways = columns.mix(np.ascontiguousarray(upright.swapaxes(0, 1)))
            window[top : top + count] = np.rint(sideways).astype(np.uint8).swapaxes(0, 1)
        return window

    def read_in_bands(
        self, x: int, y: int, width: int, height: int, progress: bool | None = False
    ) -> Uint8:
        """Read a large window as ``read`` does, with several threads.

        Args:
            x, y, width, height: the window.
            progress: show a progress bar on stderr if it takes long; None: only on a terminal.

        Raises:
            InputError, ValueError: as ``read``.
        """
        check_window(x, y, width, height, self.width, self.height)
        piece = self._slide.piece_rows(self.level)
        rows = max(1, math.ceil(piece / self._step))
        pixels = np.empty((height, width, 3), np.uint8)
        bar = progress_bar(
            total=height,
            desc=f"{self._slide.path.name}: overview",
            bar_format="{desc} {percentage:3.0f}%|{bar}| [{elapsed}, {remaining} left]",
            leave=False,
            delay=1.0,
            progress=progress,
        )

        def read(top: int) -> None:
            count = min(rows, y + height - top)
            pixels[top - y : top - y + count] = self.read(x, top, width, count)
            bar.update(count)

        threads = min(_THREADS, os.cpu_count() or 1)
        # Each thread is at a band of its own, which touches two rows of stored pieces.
        across = math.ceil(width * self._step)
        self._slide.hold_rows(across, piece * (2 * threads - 1), self.level)
        with bar, ThreadPoolExecutor(threads, "gsd-overview") as pool:
            for _ in pool.map(read, range(y, y + height, rows)):
                pass
        return pixels

    def hold_rows(self, width: int, height: int) -> None:
        """Have each stored tile decoded once while overlapping windows are read row by row.

        Args:
            width: pixels of the view that a row of windows spans.
            height: side of a window in pixels of the view.
        """
        # Interpolation reaches a stored pixel further, on either side.
        across, down = (math.ceil(side * self._step) + 2 for side in (width, height))
        self._slide.hold_rows(across, down, self.level)

    def expect(self, windows: Iterable[tuple[int, int, int, int]]) -> None:
        """Say which windows will be read next, in this order: x, y, width, height."""
        stored = self._slide.levels[self.level]

        def below(x: int, y: int, width: int, height: int) -> tuple[int, int, int, int]:
            left, across = _span(x, width, self._step, stored.width)
            top, down = _span(y, height, self._step, stored.height)
            return left, top, across, down

        self._slide.expect((below(*window) for window in windows), self.level)

    def forget_above(self, y: int) -> None:
        """Drop from memory what is only seen above row ``y``: that is not read again."""
        self._slide.forget_above(math.floor(y * self._step) - 1, self.level)


def _mean_of_squares(source: Uint8, step: int) -> Uint8:
    """Mean of each ``step`` x ``step`` pixels, one of ``_EXACT_STEPS``; halves go to the even."""
    height, width = source.shape[0] // step, source.shape[1] // step
    rows = source.reshape(height, step, -1)
    columns = rows[:, 0].astype(np.uint16)
    for i in range(1, step):
        columns += rows[:, i]
    pixels = columns.reshape(height, width, step, 3)
    sums = np.empty((height, width, 3), np.uint16)
    for channel in range(3):  # NumPy is slow on rows of three
        total = sums[..., channel]
        np.add(pixels[:, :, 0, channel], pixels[:, :, 1, channel], out=total)
        for i in range(2, step):
            total += pixels[:, :, i, channel]
    shift = 2 * (step.bit_length() - 1)
    odd = (sums >> shift) & 1
    sums += odd + ((1 << (shift - 1)) - 1)
    sums >>= shift
    return sums.astype(np.uint8)


def _span(start: int, count: int, step: float, limit: int) -> tuple[int, int]:
    """The first of the stored pixels that `_Axis` reads, and how many they are."""
    if step >= 1:
        first, last = math.floor(start * step), math.ceil((start + count) * step) - 1
    else:
        first = math.floor((start + 0.5) * step - 0.5)
        last = math.floor((start + count - 0.5) * step - 0.5) + 1
    first, last = min(max(first, 0), limit - 1), min(max(last, 0), limit - 1)
    return first, last - first + 1


class _Axis:
    """How stored pixels along one axis make pixels ``start`` to ``start + count`` of the view.

    Attributes:
        first, length: the range of stored pixels that is needed.
    """

    def __init__(self, start: int, count: int, step: float, limit: int) -> None:
        position = np.arange(start, start + count, dtype=np.float64)
        if step >= 1:  # the mean over what a pixel covers
            begin, end = position * step, (position + 1) * step
            tap = np.floor(begin)[:, None] + np.arange(math.ceil(step) + 1)
            covered = np.minimum(end[:, None], tap + 1) - np.maximum(begin[:, None], tap)
            weight = np.maximum(covered, 0) / step
        else:  # linear between the centres of stored pixels
            centre = (position + 0.5) * step - 0.5
            tap = np.floor(centre)[:, None] + np.arange(2)
            weight = 1 - np.abs(centre[:, None] - tap)
        used = weight.max(axis=0) > 0  # of whole steps, the last tap is never used
        tap = np.clip(tap[:, used], 0, limit - 1).astype(np.int64)
        self.first = int(tap.min())
        self.length = int(tap.max()) + 1 - self.first
        self._count = count
        self._blocks = [
            _dense(tap[i : i + _BLOCK] - self.first, weight[i : i + _BLOCK, used])
            for i in range(0, count, _BLOCK)
        ]

    def mix(self, source: Float32) -> Float32:
        """Weigh and sum (length, ...) ``source`` along its first axis to (count, ...)."""
        flat = source.reshape(self.length, -1)
        mixed = np.empty((self._count, flat.shape[1]), np.float32)
        for i, (first, matrix) in enumerate(self._blocks):
            rows = mixed[i * _BLOCK : (i + 1) * _BLOCK]
            np.matmul(matrix, flat[first : first + matrix.shape[1]], out=rows)
        return mixed.reshape(self._count, *source.shape[1:])


def _dense(tap: NDArray[np.int64], weight: NDArray[np.float64]) -> tuple[int, Float32]:
    """Spread weights over a matrix (pixels, stored pixels); returns its first stored pixel too."""
    first = int(tap.min())
    matrix = np.zeros((len(tap), int(tap.max()) + 1 - first), np.float32)
    np.add.at(matrix, (np.arange(len(tap))[:, None], tap - first), weight)
    return first, matrix
