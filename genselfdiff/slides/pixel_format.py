"""From the sample formats that TIFF knows to 8-bit RGB."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tifffile import TiffPage

Uint8 = NDArray[np.uint8]

_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_JPEG, _JPEG_2000, _APERIO_J2K_YCBCR = {6, 7, 33007, 34892}, {33003, 33005, 34712}, 33003
_ASSOCIATED_ALPHA, _UNASSOCIATED_ALPHA = 1, 2


Converter = Callable[[NDArray[Any]], Uint8]
"""From (h, w, samples) as decoded to (h, w, 3)."""

_BAND_PIXELS = 2**18
"""Converted at once: what it takes on the way is several times the result."""


def convert_planes(convert: Converter, planes: Sequence[NDArray[Any]]) -> Uint8:
    """Convert what was decoded to (h, w, 3), a band of rows at a time.

    Args:
        convert: from ``rgb_converter`` or ``nonzero_converter``.
        planes: (h, w, samples), or one (h, w, 1) for each sample.
    """
    height, width = planes[0].shape[:2]
    if convert is _as_stored and len(planes) == 1:
        return np.ascontiguousarray(convert(planes[0]))
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        band = [plane[top : top + rows] for plane in planes]
        pixels[top : top + rows] = convert(np.concatenate(band, axis=-1))
    return pixels


def rgb_converter(page: TiffPage) -> Converter:
    """Choose how (h, w, samples) arrays decoded from ``page`` become (h, w, 3) uint8 RGB.

    Grey is repeated, palettes are looked up, alpha is laid over white, 16 bits are scaled to 8,
    other further samples are left out.

    Raises:
        ValueError: the pixels are no grey or colour image of 1, 8 or 16 bits.
    """
    bits = page.bitspersample
    if page.sampleformat != 1 or bits not in (1, 8, 16):
        raise ValueError(f"its pixels are of type {page.dtype}; 8-bit or 16-bit is expected")
    photometric, samples = int(page.photometric), page.samplesperpixel
    if photometric == _PALETTE:
        if page.colormap is None or bits == 1:
            raise ValueError("its colour map is missing")
        table: Uint8 = (page.colormap >> 8).astype(np.uint8).T
        return lambda stored: table[stored[..., 0]]
    if photometric in (_MINISWHITE, _MINISBLACK):
        inverted = photometric == _MINISWHITE
        return lambda stored: _grey(_to_8_bits(stored[..., :1], bits), inverted)
    if photometric in (_RGB, _YCBCR) and samples >= 3:
        alpha = int(page.extrasamples[0]) if samples > 3 and page.extrasamples else 0
        # JPEG and JPEG 2000 are decoded to RGB whatever the tag says; Aperio's is often wrong.
        if photometric == _YCBCR and page.compression not in _JPEG | _JPEG_2000:
            return lambda stored: _ycbcr(_to_8_bits(stored[..., :3], bits))
        if alpha in (_ASSOCIATED_ALPHA, _UNASSOCIATED_ALPHA):
            return lambda stored: over_white(_to_8_bits(stored[..., :4], bits), alpha == 1)
        return _as_stored if bits == 8 else lambda stored: _to_8_bits(stored[..., :3], bits)
    raise ValueError(
        f"its {samples} sample(s) of photometric {page.photometric} are neither grey nor RGB"
    )


def nonzero_converter(page: TiffPage) -> Converter:
    """Choose how decoded arrays become white where a colour sample is not 0, else black.

    What counts is the stored number, not the colour that a palette gives it, of any type.
    """
    samples = 3 if page.samplesperpixel >= 3 else 1
    return lambda stored: white_where(stored[..., :samples])


def white_where(stored: NDArray[Any]) -> Uint8:
    """(h, w, samples) to (h, w, 3): 255 where any sample is not 0."""
    present: Uint8 = np.any(stored != 0, axis=-1, keepdims=True) * np.uint8(255)
    return np.repeat(present, 3, axis=-1)


def aperio_to_rgb(page_compression: int, codestream: bytes, decoded: NDArray[Any]) -> NDArray[Any]:
    """Convert a decoded JPEG 2000 tile of an SVS file if it is still YCbCr.

    Compression 33003 holds YCbCr that its codestream does not declare. imagecodecs notices it by
    the smaller chroma components and converts, but not where these are stored in full size.
    """
    full_size = codestream[:4] == b"\xff\x4f\xff\x51" and codestream[46:48] == b"\1\1"
    if page_compression != _APERIO_J2K_YCBCR or not full_size:
        return decoded
    return _ycbcr(decoded)


def over_white(rgba: Uint8, premultiplied: bool = False) -> Uint8:
    """Lay (h, w, 4) ``rgba`` over a white background: glass is white."""
    colour = rgba[..., :3].astype(np.uint16)
    alpha = rgba[..., 3:].astype(np.uint16)
    if not premultiplied:
        colour = (colour * alpha + 127) // 255
    laid: Uint8 = np.minimum(colour + (255 - alpha), 255).astype(np.uint8)
    return laid


def _as_stored(stored: Uint8) -> Uint8:
    return stored[..., :3]


def _to_8_bits(stored: NDArray[Any], bits: int) -> Uint8:
    if bits == 16:
        return ((stored.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return stored.astype(np.uint8) * np.uint8(255) if bits == 1 else stored


def _grey(grey: Uint8, inverted: bool) -> Uint8:
    return np.repeat(255 - grey if inverted else grey, 3, axis=-1)


def _ycbcr(stored: Uint8) -> Uint8:
    """Convert by ITU-R BT.601, the default of TIFF's YCbCrCoefficients."""
    y, cb, cr = np.moveaxis(stored.astype(np.float32), -1, 0)
    cb, cr = cb - 128, cr - 128
    rgb = (y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb)
    clipped: Uint8 = np.clip(np.rint(np.stack(rgb, axis=-1)), 0, 255).astype(np.uint8)
    return clipped
