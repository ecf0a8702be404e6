"""From the sample formats that TIFF knows to 8-bit RGB."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tifffile import TiffPage

from genselfdiff.slides.stored.notes import tell_once
from genselfdiff.storage.places import Place

Uint8 = NDArray[np.uint8]

_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_ASSOCIATED_ALPHA, _UNASSOCIATED_ALPHA = 1, 2

JPEG, JPEG_2000 = (7, 33007, 34892), (33003, 33005, 34712)
"""Numbers of the compressions that TIFF knows them by; the first JPEG, 6, is not read."""

FULL_RANGE = 2**16 - 1
"""White in 16 bits, where nothing else is told."""

_MAX_SAMPLE_VALUE = 281
_WHITE_OF_FEWER_BITS = frozenset(2**bits - 1 for bits in range(9, 16))
"""What cameras have; other values of MaxSampleValue are those of the brightest pixel."""

_BT_601 = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in luma, where a TIFF's YCbCrCoefficients tell no others."""


class UnreadKind(ValueError):
    """Pixels that may be whole, but are of a kind that is not read."""


Converter = Callable[[NDArray[Any]], Uint8]
"""From (h, w, samples) as decoded to (h, w, 3)."""


@dataclass(frozen=True)
class PixelFormat:
    """What becomes of the pieces of a page: those that are stored, and the others.

    Attributes:
        convert: to RGB; raises ValueError where the pixels are not what the page says.
        empty: what stands for a piece that is not stored, and broadcasts to its pixels.
    """

    convert: Converter
    empty: Uint8


_BAND_PIXELS = 2**18
"""Converted at once: what it takes on the way is several times the result."""


def convert_planes(convert: Converter, planes: Sequence[NDArray[Any]]) -> Uint8:
    """Convert what was decoded to (h, w, 3), a band of rows at a time.

    Args:
        convert: that of a ``PixelFormat``.
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


def rgb_format(page: TiffPage, path: Place, white: int = FULL_RANGE) -> PixelFormat:
    """Choose how what is decoded from ``page`` becomes RGB.

    Grey is repeated, palettes are looked up, alpha is laid over white, 16 bits are scaled to 8.
    What is not stored is glass, or of a palette image the first entry.

    Args:
        page: where the pixels are from.
        path: the file: it is told where its pixels are used otherwise than its tags say.
        white: the number in 16 bits that is white.

    Raises:
        UnreadKind: the pixels are no grey or colour image of 1, 8 or 16 bits.
        ValueError: tags of the page are damaged.
    """
    bits = page.bitspersample
    if page.sampleformat != 1 or bits not in (1, 8, 16):
        raise UnreadKind(
            f"its pixels are of type {page.dtype}, {bits} bits; unsigned ones of 8 or 16 bits are"
            " expected"
        )
    colours, alpha = _samples(page)
    if colours == 3 and page.photometric == _MINISBLACK:
        tell_once(
            logging.WARNING,
            f"{path}: its three samples are tagged as grey; they are taken for red, green and blue",
        )
    elif page.samplesperpixel > colours + (alpha is not None):
        tell_once(logging.INFO, f"{path}: has samples beyond RGB that are not used")
    scaled = partial(_to_8_bits, bits=bits, white=white)
    convert = _colour_converter(page, colours, scaled)
    glass = np.full(3, 255, np.uint8)
    empty = palette_of(page)[0] if page.photometric == _PALETTE else glass
    if alpha is None:
        return PixelFormat(convert, empty)
    opacity = slice(alpha, alpha + 1)
    premultiplied = page.extrasamples[alpha - page.samplesperpixel] == _ASSOCIATED_ALPHA

    def laid(stored: NDArray[Any]) -> Uint8:
        rgba = np.concatenate([convert(stored), scaled(stored[..., opacity])], axis=-1)
        return over_white(rgba, premultiplied)

    return PixelFormat(laid, empty)


def _colour_converter(page: TiffPage, colours: int, scaled: Converter) -> Converter:
    """How the first samples become RGB; ``scaled`` makes 8 bits of them."""
    if page.photometric == _PALETTE:
        table = palette_of(page)
        return lambda stored: table[stored[..., 0].astype(np.uint16)]  # bits are bool as decoded
    if colours == 1:
        inverted = page.photometric == _MINISWHITE
        return lambda stored: _grey(scaled(stored[..., :1]), inverted)
    # JPEG and JPEG 2000 are decoded to RGB whatever the tag says, but for planes kept apart.
    decoded = page.compression in JPEG + JPEG_2000 and page.planarconfig == 1
    if page.photometric == _YCBCR and not decoded:
        to_rgb = _ycbcr_converter(page)
        return lambda stored: to_rgb(scaled(stored[..., :3]))
    return _as_stored if page.bitspersample == 8 else lambda stored: scaled(_as_stored(stored))


def _samples(page: TiffPage) -> tuple[int, int | None]:
    """How many samples of a page are its colours, 1 or 3, and which further one is alpha.

    Raises:
        UnreadKind: it has others, and none of its tags tells what they are.
    """
    photometric, samples = int(page.photometric), page.samplesperpixel
    colours = 3 if photometric in (_RGB, _YCBCR) else 1
    if samples < colours or photometric not in (
        _MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _YCBCR
    ):  # fmt: skip
        raise UnreadKind(
            f"its {samples} sample(s) of photometric {page.photometric} are neither grey nor RGB"
        )
    alphas = _alphas(page, colours)
    others = samples - colours - len(alphas)
    if colours == 1 and others:
        # Programs that know bands, not colours, call the first one grey and do not name the others.
        if photometric != _MINISBLACK or others != 2 or alphas not in ([], [3]):
            raise UnreadKind(
                f"its {samples} samples are tagged as grey, not as red, green and blue; save it as"
                " RGB"
            )
        colours = 3
    return colours, alphas[0] if alphas else None


def _alphas(page: TiffPage, colours: int) -> list[int]:
    """Which samples of a page are alpha, of those beyond its colours."""
    kinds = page.extrasamples
    first = max(page.samplesperpixel - len(kinds), colours)
    return [
        sample
        for sample in range(first, page.samplesperpixel)
        if kinds[sample - page.samplesperpixel] in (_ASSOCIATED_ALPHA, _UNASSOCIATED_ALPHA)
    ]


def palette_of(page: TiffPage) -> Uint8:
    """The colours of a palette image, (entries, 3).

    A colour map has 16 bits; some programs store 0 to 255 in them, which libtiff recognises too.

    Raises:
        ValueError: it has fewer entries than pixels have values.
    """
    table = page.colormap
    if table is None or len(table) != 3 or table.shape[1] < 2**page.bitspersample:
        raise ValueError("its colour map is missing or too short")
    return (table if table.max() < 256 else table >> 8).astype(np.uint8).T


def told_white(page: TiffPage, significant_bits: int | None) -> int:
    """The number in 16 bits that is white, where it is told that fewer bits are used."""
    tag = page.tags.get(_MAX_SAMPLE_VALUE)
    told = {int(value) for value in np.atleast_1d(tag.value)} if tag is not None else set()
    if significant_bits is not None:
        told.add(2**significant_bits - 1)
    fewer = told & _WHITE_OF_FEWER_BITS
    return min(fewer, default=FULL_RANGE) if page.bitspersample == 16 else FULL_RANGE


def mask_format(page: TiffPage) -> PixelFormat:
    """Choose how what is decoded of a mask becomes what ``mask_pixels`` makes.

    What counts is the stored number, of any type; a palette tells only whether black is 0.

    Raises:
        UnreadKind: see ``refuse_white_zero``.
    """
    refuse_white_zero(page)
    alphas = _alphas(page, 1)
    colours = 3 if page.samplesperpixel - len(alphas) >= 3 else 1
    palette = palette_of(page) if page.photometric == _PALETTE else None

    def convert(stored: NDArray[Any]) -> Uint8:
        return mask_pixels(stored[..., :colours], stored[..., alphas], palette)

    return PixelFormat(convert, np.array([0, 255, 0], np.uint8))


def refuse_white_zero(page: TiffPage) -> None:
    """Raise UnreadKind for a mask of which 0 is white: nobody knows whether that is marked."""
    if page.photometric == _MINISWHITE:
        raise UnreadKind("0 is white in it, which may mean two things; save it with 0 as black")


def mask_pixels(colours: NDArray[Any], alphas: NDArray[Any], palette: Uint8 | None = None) -> Uint8:
    """Tell what is marked in a mask, and what of it can be seen.

    Args:
        colours: (h, w, samples).
        alphas: (h, w, samples), of which there may be none.
        palette: (entries, 3), the colours of the numbers; None: they have none.

    Returns:
        (h, w, 3): red where a colour is not 0, green where alpha is not 0, blue where a number is
        shown in black and 0 is not, else no colour.
    """
    pixels = np.zeros((*colours.shape[:2], 3), np.uint8)
    pixels[..., 0] = np.any(colours != 0, axis=-1) * np.uint8(255)
    pixels[..., 1] = np.all(alphas != 0, axis=-1) * np.uint8(255)
    if palette is not None and palette[0].any():
        black = np.flatnonzero(~palette.any(axis=1))
        pixels[..., 2] = np.isin(colours[..., 0], black) * np.uint8(255)
    return pixels


def over_white(rgba: Uint8, premultiplied: bool = False) -> Uint8:
    """Lay (h, w, 4) ``rgba`` over a white background: glass is white."""
    colour = rgba[..., :3].astype(np.uint16)
    alpha = rgba[..., 3:].astype(np.uint16)
    if not premultiplied:
        colour = (colour * alpha + 127) // 255
    laid: Uint8 = np.minimum(colour + (255 - alpha), 255).astype(np.uint8)
    return laid


def _as_stored(stored: NDArray[Any]) -> NDArray[Any]:
    if stored.shape[-1] < 3:
        raise ValueError(f"it has {stored.shape[-1]} sample(s) a pixel, where 3 are told")
    return stored[..., :3]


def _to_8_bits(stored: NDArray[Any], bits: int, white: int) -> Uint8:
    if bits == 8:
        return stored
    if bits == 1:
        return stored.astype(np.uint8) * np.uint8(255)
    if white < FULL_RANGE and (highest := int(stored.max(initial=0))) > white:
        raise ValueError(f"it holds {highest}, and its tags tell at most {white}")
    return ((stored.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)


def _grey(grey: Uint8, inverted: bool) -> Uint8:
    return np.repeat(255 - grey if inverted else grey, 3, axis=-1)


def _ycbcr_converter(page: TiffPage) -> Converter:
    """Choose how YCbCr of 8 bits becomes RGB, by the page's YCbCrCoefficients.

    Raises:
        UnreadKind: black and white are not 0 and 255, as in video.
        ValueError: the coefficients are damaged.
    """
    coefficients, reference = page.tags.get(529), page.tags.get(532)
    if reference is not None and _rationals(reference.value) != [0, 255, 128, 255, 128, 255]:
        raise UnreadKind("its YCbCr has a ReferenceBlackWhite of its own, which is not read")
    luma = _BT_601 if coefficients is None else _rationals(coefficients.value)
    if len(luma) != 3 or not min(luma) > 0:
        raise ValueError("its YCbCrCoefficients are damaged")
    return partial(ycbcr_to_rgb, luma=luma)


def _rationals(value: Sequence[int]) -> list[float]:
    return [value[i] / value[i + 1] for i in range(0, len(value), 2)]


def ycbcr_to_rgb(stored: Uint8, luma: Sequence[float] = _BT_601) -> Uint8:
    """Convert (h, w, 3) YCbCr of 8 bits; ``luma``: the shares of red, green and blue in Y."""
    red, green, blue = luma
    y, cb, cr = np.moveaxis(stored.astype(np.float32), -1, 0)
    r, b = y + (2 - 2 * red) * (cr - 128), y + (2 - 2 * blue) * (cb - 128)
    rgb = np.stack((r, (y - red * r - blue * b) / green, b), axis=-1)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
