"""An open slide or image, of which windows are read."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from genselfdiff.errors import InputError
from genselfdiff.settings import check_mpp
from genselfdiff.slides.resolution import MAX_ENLARGEMENT
from genselfdiff.slides.scaled_view import ScaledView
from genselfdiff.slides.stored.damage import Damage
from genselfdiff.slides.stored.stored_image import Box, StoredImage, StoredLevel
from genselfdiff.slides.window import check_window

Uint8 = NDArray[np.uint8]


@dataclass(frozen=True)
class Level:
    """A resolution level of a slide.

    Attributes:
        width, height: size in its own pixels.
        downsample: level-0 pixels per pixel of this level, 1.0 for level 0.
    """

    width: int
    height: int
    downsample: float


class Slide:
    """An open slide or image; made by ``open_slide``. Threads may read from it at once.

    Attributes:
        path: the file.
        width, height: size in level-0 pixels.
        mpp: micrometres per level-0 pixel, or None if neither the file nor the caller tells.
        stored_mpp: the same as the file tells it.
        levels: from the largest to the smallest.
    """

    def __init__(self, damage: Damage, stored: StoredImage, mpp: float | None) -> None:
        self.path = damage.path
        self._damage = damage
        self.stored_mpp = stored.mpp
        self.mpp = stored.mpp if mpp is None else mpp
        self.width = stored.levels[0].width
        self.height = stored.levels[0].height
        self.levels = tuple(
            Level(level.width, level.height, _downsample(self.width, self.height, level))
            for level in stored.levels
        )
        self._stored = stored
        self._closed = False
        self._thumbnail: tuple[int, Uint8] | None = None

    @property
    def blank_tiles(self) -> int:
        """Stored tiles that were damaged and taken for glass, of those read until now."""
        return self._damage.count

    def __enter__(self) -> "Slide":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the file and the pixels held in memory; closing twice is harmless."""
        if not self._closed:
            self._closed = True
            self._stored.forget_pieces()
            self._stored.close()

    def read_level(self, x: int, y: int, width: int, height: int, level: int = 0) -> Uint8:
        """Read a window, which must lie inside the level.

        Args:
            x, y: its top-left corner in pixels of ``level``.
            width, height: its size in pixels of ``level``.
            level: index into ``levels``.

        Returns:
            (height, width, 3) uint8 RGB.

        Raises:
            InputError: the stored pixels are damaged.
            ValueError: the window is empty or leaves the level, or the slide is closed.
        """
        if self._closed:
            raise ValueError(f"{self.path}: the slide is closed")
        stored = self._stored.levels[level]
        check_window(x, y, width, height, stored.width, stored.height)
        return stored.read(x, y, width, height)

    def shows_field_of(self, width: int, height: int) -> bool:
        """Whether a picture of that size in pixels has the slide's proportions."""
        expected = width * self.height / self.width
        # Rounding at a lower resolution shifts the sides by a pixel each.
        return abs(height - expected) <= max(2.0, 0.01 * expected)

    def at_mpp(self, mpp: float | None) -> ScaledView:
        """View the slide at another resolution.

        Args:
            mpp: micrometres per pixel of the view; None: level 0 as it is, whatever its mpp.

        Raises:
            InputError: the slide's own mpp is not known, or ``mpp`` is out of range, or so far
                from the slide's own that one of them must be wrong.
        """
        if mpp is None:
            return ScaledView(self, 1.0)
        check_mpp(mpp)
        if self.mpp is None:
            raise InputError(
                f"{self.path}: {self._stored.doubt or 'does not state its resolution'}; give it"
                " with --mpp, in micrometres per pixel (about 0.25 at 40x, 0.5 at 20x)"
            )
        scale = mpp / self.mpp
        if not 1 / MAX_ENLARGEMENT <= scale <= 2 * max(self.width, self.height):
            raise InputError(
                f"{self.path}: {self.width} x {self.height} pixels of {self.mpp:g} um cannot be"
                f" viewed at {mpp:g} um/px; check --mpp"
            )
        return ScaledView(self, scale)

    def piece_rows(self, level: int) -> int:
        """Rows of pixels of the tiles, strips or picture that a level is stored in."""
        return self._stored.levels[level].piece_height

    def piece_pixels(self, level: int) -> int:
        """Pixels of such a tile, strip or picture: reading one pixel of it decodes them all."""
        stored = self._stored.levels[level]
        return stored.piece_width * stored.piece_height

    def hold_rows(self, width: int, height: int, level: int) -> None:
        """Have each stored tile decoded once while overlapping windows are read row by row.

        What a row of windows touches is kept in memory, up to 1 GiB, until the slide is closed.

        Args:
            width: pixels of ``level`` that a row of windows spans.
            height: side of a window in pixels of ``level``.
            level: index into ``levels``.
        """
        self._stored.levels[level].hold_rows(width, height)

    def expect(self, windows: Iterable[Box], level: int) -> None:
        """Say which windows of ``level`` will be read next, in this order: x, y, width, height.

        What is stored elsewhere is then fetched ahead.
        """
        self._stored.levels[level].expect_windows(windows)

    def forget_above(self, y: int, level: int) -> None:
        """Drop from memory what is stored above row ``y`` of ``level``: it is not read again."""
        self._stored.levels[level].forget_above(y)

    def memory_bound(self) -> int:
        """Bytes of decoded pixels that reading the slide holds at most, as it is read now."""
        return self._stored.memory_bound()

    def thumbnail(self, max_side: int, progress: bool | None = False) -> Uint8:
        """Return the whole slide as (h, w, 3) uint8 RGB, its longer side at most ``max_side``.

        The last one made is remembered: without a pyramid, all of level 0 has to be read for it.

        Args:
            max_side: in pixels.
            progress: show a progress bar on stderr if it takes long; None: only on a terminal.

        Raises:
            InputError: the stored pixels are damaged.
        """
        if self._thumbnail is None or self._thumbnail[0] != max_side:
            view = self.thumbnail_view(max_side)
            pixels = view.read_in_bands(0, 0, view.width, view.height, progress)
            self._thumbnail = max_side, pixels
        return self._thumbnail[1].copy()

    def thumbnail_view(self, max_side: int) -> ScaledView:
        """View the slide as ``thumbnail`` shows it, to read parts of that."""
        return ScaledView(self, max(max(self.width, self.height) / max_side, 1.0))


def _downsample(width: int, height: int, level: StoredLevel) -> float:
    """Level-0 pixels per pixel; a whole number if rounding explains the sizes.

    A level of half the size drops or repeats the last of an odd number of columns: its pixels
    still cover exactly two, though the sizes' ratio says a little more or less.
    """
    ratio = math.sqrt((width / level.width) * (height / level.height))
    whole = max(1, round(ratio))
    exact = abs(width / whole - level.width) < 1 and abs(height / whole - level.height) < 1
    return float(whole) if exact else ratio
