"""Opening slides and images, and reading windows of them."""

import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from genselfdiff.errors import InputError, one_line
from genselfdiff.input_files import open_input
from genselfdiff.slides.damage import Damage
from genselfdiff.slides.openslide_file import OPENSLIDE_SUFFIXES, open_with_openslide
from genselfdiff.slides.picture_file import is_picture, open_picture
from genselfdiff.slides.resolution import MAX_ENLARGEMENT, check_mpp
from genselfdiff.slides.scaled_view import ScaledView, check_window
from genselfdiff.slides.stored_image import MAX_PIXELS_AT_ONCE, StoredImage, StoredLevel
from genselfdiff.slides.tiff_directories import is_tiff
from genselfdiff.slides.tiff_file import open_tiff
from genselfdiff.slides.zarr_folder import is_zarr, open_zarr

Uint8 = NDArray[np.uint8]

logger = logging.getLogger("genselfdiff")


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
        if stored.icc_bytes:
            logger.debug(
                "%s: has an ICC profile of %d bytes; it is not applied", self.path, stored.icc_bytes
            )

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
                f"{self.path}: {self._stored.doubt or 'does not tell its resolution'}; give it with"
                " --mpp, in micrometres per pixel (about 0.25 at 40x, 0.5 at 20x)"
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


def open_slide(path: str | Path, *, mpp: float | None = None, on_error: str = "fail") -> Slide:
    """Open a slide or image: SVS, OME-TIFF, pyramidal or plain TIFF, PNG, JPEG.

    Formats of ``OPENSLIDE_SUFFIXES`` are read through OpenSlide, and folders that are an OME-Zarr
    through the zarr package, if these are installed.

    Only what is read is decoded, and decoded tiles are kept within a bound that all open slides
    share; PNG and JPEG are decoded as a whole.

    Args:
        path: the file, or the folder of an OME-Zarr.
        mpp: micrometres per pixel of level 0, believed more than the file.
        on_error: "fail": a stored tile that is damaged is an error; "blank": it is glass, of which
            a warning is logged. A damaged PNG or JPEG is always an error.

    Raises:
        InputError: the file is missing, empty, truncated, no image, not grey or RGB, or cannot be
            read in bounded memory, or OpenSlide is needed and missing; or ``mpp`` is out of range.
    """
    return open_counting(Damage(Path(path), on_error), mpp=mpp)


def open_counting(damage: Damage, *, mpp: float | None = None) -> Slide:
    """Open the file that ``damage`` is of as `open_slide` does; several openings can share it."""
    if mpp is not None:
        check_mpp(mpp)
    return Slide(damage, _open(damage), mpp)


def open_mask(path: str | Path) -> Slide:
    """Open an image as ``open_slide`` does, for its stored numbers: see ``mask_pixels``.

    Numbers of any type count as they are stored; where a palette gives 0 a colour, what it gives
    black is told from the others.

    Raises:
        InputError: as ``open_slide``.
    """
    damage = Damage(Path(path))
    return Slide(damage, _open(damage, as_mask=True), None)


def _open(damage: Damage, *, as_mask: bool = False) -> StoredImage:
    path = damage.path
    if os.path.isdir(path):  # False for a name that is too long, of which Path raises an error
        if not is_zarr(path):
            raise InputError(f"{path}: is a folder; name a slide or image in it")
        if as_mask:
            raise InputError(f"{path}: a mask cannot be an OME-Zarr; give it as a TIFF or PNG")
        return open_zarr(path, damage)
    if not os.path.exists(path):
        raise InputError(f"{path}: no such file")
    try:
        with open_input(path) as file:
            header = file.read(16)
        if not header:
            raise InputError(f"{path}: the file is empty; copy or download it again")
        if path.suffix.lower() in OPENSLIDE_SUFFIXES:
            return open_with_openslide(path, damage)
        if is_tiff(header):
            return open_tiff(path, damage, as_mask=as_mask)
        if is_picture(header):
            return open_picture(path, header, damage, as_mask=as_mask)
    except OSError as error:
        raise InputError(f"{path}: cannot be opened: {one_line(error)}") from error
    raise InputError(f"{path}: is no TIFF, SVS, PNG or JPEG; convert it to a tiled TIFF")


def read_image(path: str | Path) -> Uint8:
    """Read a whole image at level 0 as (h, w, 3) uint8 RGB.

    Raises:
        InputError: as ``open_slide``; or the image has more than 2**28 pixels.
    """
    with open_slide(path) as slide:
        if slide.width * slide.height > MAX_PIXELS_AT_ONCE:
            raise InputError(
                f"{path}: {slide.width} x {slide.height} pixels are too many to read at once; cut"
                " it into smaller images"
            )
        return slide.read_level(0, 0, slide.width, slide.height)


def _downsample(width: int, height: int, level: StoredLevel) -> float:
    """Level-0 pixels per pixel; a whole number if rounding explains the sizes.

    A level of half the size drops or repeats the last of an odd number of columns: its pixels
    still cover exactly two, though the sizes' ratio says a little more or less.
    """
    ratio = math.sqrt((width / level.width) * (height / level.height))
    whole = max(1, round(ratio))
    exact = abs(width / whole - level.width) < 1 and abs(height / whole - level.height) < 1
    return float(whole) if exact else ratio
