"""PNG and JPEG files, which can only be decoded as a whole."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from genselfdiff.errors import InputError, one_line
from genselfdiff.slides.stored.damage import Damage
from genselfdiff.slides.stored.notes import tell_of_16_bits
from genselfdiff.slides.stored.orientation import picture_orientation, upright
from genselfdiff.slides.stored.pixel_format import FULL_RANGE, mask_pixels, over_white
from genselfdiff.slides.stored.stated_resolution import believed, dpi_size
from genselfdiff.slides.stored.stored_image import (
    MAX_PIXELS_AT_ONCE,
    StoredImage,
    StoredLevel,
    is_absurd,
)
from genselfdiff.storage.opening import local_copy
from genselfdiff.storage.places import Place
from genselfdiff.storage.stored_file import StoredFile

Uint8 = NDArray[np.uint8]

# The classes, not Image.open: its limit on pixels is one of the process, and it only warns.
_FORMATS = {b"\x89PNG\r\n\x1a\n": PngImageFile, b"\xff\xd8\xff": JpegImageFile}

_BAND_PIXELS = 2**18


def is_picture(header: bytes) -> bool:
    """Tell by the first bytes whether a file is a PNG or JPEG."""
    return any(header.startswith(magic) for magic in _FORMATS)


def open_picture(
    file: StoredFile, header: bytes, damage: Damage, *, as_mask: bool = False
) -> StoredImage:
    """Open a PNG or JPEG file; it is decoded when first read, and if damaged, never tolerated.

    With ``as_mask`` its pixels become what ``mask_pixels`` makes of the stored numbers. One that
    lies elsewhere is copied into a temporary file until the image is closed. ``file`` is closed.

    Raises:
        InputError: the file is damaged, or larger than ``MAX_PIXELS_AT_ONCE``.
    """
    with ExitStack() as on_failure:
        with file:
            path = on_failure.enter_context(local_copy(file))
        image = _open_picture(path, file.size, header, damage, as_mask)
        release = on_failure.pop_all().close
    return replace(image, close=release)


def _open_picture(
    path: Path, size: int, header: bytes, damage: Damage, as_mask: bool
) -> StoredImage:
    shown = damage.path
    with _open(path, header, shown) as image:
        width, height = image.size
        orientation, is_deep = picture_orientation(image), _has_16_bits(image)
        per_byte = _pixels_per_byte(image)
        mpp, doubt = _mpp(image.info.get("dpi", (0.0, 0.0)))
        icc = image.info.get("icc_profile") or b""
    if width < 1 or height < 1:
        raise InputError(f"{shown}: is {width} x {height} pixels: there is nothing to read")
    if is_absurd(width, height, size, per_byte):
        raise InputError(
            f"{shown}: claims {width} x {height} pixels, but is far too small for them"
        )
    if width * height > MAX_PIXELS_AT_ONCE:
        raise InputError(
            f"{shown}: {width} x {height} pixels are too many for a PNG or JPEG, which must be"
            " decoded as a whole; convert it to a tiled TIFF"
        )
    picture = _Picture(path, damage, header, width, height, _mask if as_mask else _rgb)
    levels = upright([picture], orientation)
    if is_deep and not as_mask:
        tell_of_16_bits(levels[0], FULL_RANGE)
    return StoredImage(levels, mpp, doubt, icc, lambda: None)


class _Picture(StoredLevel):
    def __init__(
        self,
        path: Path,
        damage: Damage,
        header: bytes,
        width: int,
        height: int,
        convert: Callable[[Image.Image], Uint8],
    ) -> None:
        super().__init__(width, height, width, height, damage)
        self._path = path
        self._header = header
        self._convert = convert

    def decode(self, column: int, row: int) -> Uint8:
        try:
            with _open(self._path, self._header, self.damage.path) as image:
                if image.size != (self.width, self.height):
                    raise InputError(
                        f"{self.damage.path}: has changed since it was opened; try again"
                    )
                image.load()
                return self._in_bands(image)
        except (OSError, ValueError, SyntaxError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{self.damage.path}: cannot be decoded ({one_line(error)}); is it whole?"
            ) from error

    def _in_bands(self, image: Image.Image) -> Uint8:
        """Convert a few rows at a time: what it takes on the way is several times the result."""
        pixels = np.empty((self.height, self.width, 3), np.uint8)
        rows = max(1, _BAND_PIXELS // self.width)
        for top in range(0, self.height, rows):
            bottom = min(top + rows, self.height)
            pixels[top:bottom] = self._convert(image.crop((0, top, self.width, bottom)))
        return pixels


def _open(path: Path, header: bytes, shown: Place) -> ImageFile:
    kind = next(kind for magic, kind in _FORMATS.items() if header.startswith(magic))
    try:
        return kind(path)
    except (OSError, ValueError, SyntaxError, TypeError, IndexError) as error:
        raise InputError(
            f"{shown}: is no readable PNG or JPEG ({one_line(error)}); is it whole?"
        ) from error


def _pixels_per_byte(image: ImageFile) -> float:
    """At most: deflate makes 1 byte of 1032, a JPEG needs 2 bits for 64 pixels at the least."""
    if isinstance(image, JpegImageFile):
        return 1024
    bits = {"RGB": 24, "RGBA": 32, "LA": 16, "I;16": 16}
    return 1032 * 8 / bits.get(image.mode, 1)


def _has_16_bits(image: ImageFile) -> bool:
    """Whether a PNG has 16 bits, of which Pillow keeps the higher 8 where it is in colour."""
    return any("16" in str(tile.args) for tile in image.tile)


def _rgb(image: Image.Image) -> Uint8:
    if image.mode.startswith("I"):  # 16-bit grey; Pillow would clip it at 255
        grey = (np.asarray(image).astype(np.uint32) + 128) // 257
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        return over_white(np.asarray(image.convert("RGBA")))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _mask(image: Image.Image) -> Uint8:
    stored = np.asarray(image)
    stored = stored.reshape(*stored.shape[:2], -1)
    colours = 3 if stored.shape[2] >= 3 else 1
    table = image.getpalette() if image.mode == "P" else None
    palette = None if table is None else np.reshape(np.array(table, np.uint8), (-1, 3))
    return mask_pixels(stored[..., :colours], stored[..., colours:], palette)


def _mpp(dpi: tuple[float, float]) -> tuple[float | None, str]:
    try:
        return believed(dpi_size(float(dpi[0]), float(dpi[1])))
    except (TypeError, ValueError, ZeroDivisionError):
        return None, ""
