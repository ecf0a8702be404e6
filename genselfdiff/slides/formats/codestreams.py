"""JPEG, JPEG 2000 and WebP as they are stored, whatever file they lie in: what their headers say.

Sizes are looked at before a codec makes room for them. What colours a stream holds is told by it
where it tells anything, else by what the file around it says.
"""

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from genselfdiff.slides.stored.pixel_format import ycbcr_to_rgb

GREY, RGB = 1, 2
"""Colours that libjpeg makes, by their numbers in TIFF."""

_COLOUR_SEGMENTS = {(0xE0, b"JFIF\0"), (0xE1, b"Exif\0"), (0xEE, b"Adobe")}
"""Marker and beginning of the segments of a JPEG that settle which colours it holds."""

_SPARE_PIXELS = 2**20
"""That a compressed tile may have beyond twice those that are expected."""


def most_pixels(across: int, down: int) -> int:
    """Pixels that a stream may have where those of ``across`` x ``down`` are expected."""
    return 2 * across * down + _SPARE_PIXELS


def decode_jpeg(
    data: bytes, limit: int, wanted: int | None, *, may_be_rgb: bool, tables: bytes | None = None
) -> NDArray[np.uint8]:
    """Decode a JPEG of 8 bits to (h, w, samples).

    Args:
        data: as it is stored.
        limit: pixels that it may have.
        wanted: ``GREY``, ``RGB`` or None, as it is.
        may_be_rgb: a JPEG that says nothing of its colours, and stores them in one size, is RGB.
        tables: that it lacks, as a JPEG of their own.

    Raises:
        ValueError: it is larger, or of more bits; or what libjpeg raises.
    """
    header = _jpeg_header(data)
    check_size((header.width, header.height), limit)
    stored = RGB if may_be_rgb and header.is_silent_rgb else None
    pixels = imagecodecs.jpeg8_decode(data, tables=tables, colorspace=stored, outcolorspace=wanted)
    if pixels.dtype != np.uint8:
        raise ValueError(f"its JPEG is of {pixels.dtype}")
    return pixels if pixels.ndim == 3 else pixels[..., None]


def decode_jpeg_2000(
    data: bytes,
    limit: int,
    *,
    may_be_ycbcr: bool,
    decode: Callable[[bytes], NDArray[Any]] = imagecodecs.jpeg2k_decode,
) -> NDArray[Any]:
    """Decode a JPEG 2000 to (h, w, samples).

    Args:
        data: as it is stored.
        limit: pixels that it may have.
        may_be_ycbcr: one that says nothing of its colours is YCbCr.
        decode: from it to (h, w) or (h, w, samples).

    Raises:
        ValueError: it is larger, or has no header; or what OpenJPEG raises.
    """
    header = _jpeg_2000_header(data)
    check_size((header.width, header.height), limit)
    pixels = decode(data)
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    return ycbcr_to_rgb(pixels) if may_be_ycbcr and header.is_silent_ycbcr else pixels


def check_size(size: tuple[int, int], limit: int) -> None:
    """Raise ValueError before a codec makes room for pixels that nobody expects."""
    if size[0] * size[1] > limit:
        raise ValueError(f"it says of itself that it is {size[0]} x {size[1]} pixels")


class _JpegHeader(NamedTuple):
    """Size in pixels of a JPEG, and whether it has three components without telling colours."""

    width: int
    height: int
    is_silent_rgb: bool


def _jpeg_header(data: bytes) -> _JpegHeader:
    """Read what stands before the scan of a JPEG; ValueError if it has no frame."""
    at, tells_colours = 2, False
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width, components = struct.unpack_from(">HHB", data, at + 5)
            # Components follow by number, sampling and table; RGB is never stored in other sizes.
            sampling = data[at + 11 : at + 10 + 3 * components : 3]
            alike = components == 3 and len(set(sampling)) == 1
            return _JpegHeader(width, height, alike and not tells_colours)
        content = data[at + 4 : at + 9]
        tells_colours |= (marker, content) in _COLOUR_SEGMENTS
        # Bytes of 255 may fill up before a marker, which otherwise tells its segment's length.
        at += 1 if marker == 0xFF else 2 + struct.unpack_from(">H", data, at + 2)[0]
    raise ValueError("its JPEG has no frame")


class _Jpeg2000Header(NamedTuple):
    """Size in pixels of a JPEG 2000, and whether it may be YCbCr without telling it.

    That is a bare codestream without a colour transform, which a file around it would tell. Where
    its chroma is smaller, imagecodecs converts it.
    """

    width: int
    height: int
    is_silent_ycbcr: bool


def _jpeg_2000_header(data: bytes) -> _Jpeg2000Header:
    start = data.find(b"\xff\x4f\xff\x51")
    if start < 0 or start + 24 > len(data):
        raise ValueError("its JPEG 2000 has no header")
    right, bottom, left, top = struct.unpack_from(">IIII", data, start + 8)
    full_size = data[start + 46 : start + 48] == b"\1\1"
    silent = start == 0 and full_size and not _has_colour_transform(data)
    return _Jpeg2000Header(max(right - left, 0), max(bottom - top, 0), silent)


def _has_colour_transform(codestream: bytes) -> bool:
    at = 2
    while at + 9 <= len(codestream) and codestream[at] == 0xFF:
        if codestream[at + 1] == 0x52:  # COD: coding style, order, layers (2 bytes), transform
            return codestream[at + 8] != 0
        at += 2 + int(struct.unpack_from(">H", codestream, at + 2)[0])
    return False


def webp_size(data: bytes) -> tuple[int, int]:
    """Width and height in the first chunk of a WebP; ValueError if there is none."""
    kind = data[12:16]
    if len(data) >= 30 and kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if len(data) >= 30 and kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if len(data) >= 25 and kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    raise ValueError("its WebP has no header")
