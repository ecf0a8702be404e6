"""Decoding a tile or strip of a TIFF with codecs that survive damaged data.

Damage is an exception here, never the end of the process. Of imagecodecs, the LZW decoder and the
one for lossless JPEG, which stands in where libjpeg refuses, write beyond their memory when a
stream is damaged (seen in 2026.3.6). libtiff decodes LZW instead, and libjpeg alone JPEG; codecs
of schemes in which no slide is stored are not let near data at all.
"""

import io
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import TiffImageFile
from tifffile import TiffPage

from genselfdiff.slides.stored.pixel_format import JPEG, JPEG_2000, UnreadKind, ycbcr_to_rgb

Decoder = Callable[[bytes, int], NDArray[Any]]
"""From the stored bytes and the number of a piece to (h, w, samples)."""

_UNCOMPRESSED, _LZW = 1, 5
_APERIO_YCBCR = 33003
_WEBP = (34927, 50001)
_OTHERS = (8, 32773, 32946, 34925, 34926, 50000, *_WEBP)
"""Deflate, PackBits, LZMA, zstd and WebP, the last ones under old and new numbers."""

_GREY, _RGB, _YCBCR = 1, 2, 6
_COLOUR_SEGMENTS = {(0xE0, b"JFIF\0"), (0xE1, b"Exif\0"), (0xEE, b"Adobe")}
"""Marker and beginning of the segments of a JPEG that settle which colours it holds."""

_SPARE_PIXELS = 2**20
"""That a compressed tile may have beyond twice those of its page's tiles."""


def piece_size(page: TiffPage) -> tuple[int, int]:
    """Columns and rows of a page's tiles or strips, as its tags tell them."""
    if page.is_tiled:
        return page.tilewidth, page.tilelength
    return page.imagewidth, min(page.rowsperstrip, page.imagelength)


def piece_decoder(page: TiffPage) -> Decoder:
    """Make the decoder of a page's tiles or strips; it raises what its codec raises.

    All that is needed is taken from ``page`` now: its TiffFile may be closed afterwards.

    Raises:
        UnreadKind: the page is compressed as no slide is.
    """
    if page.compression in JPEG:
        return _jpeg_decoder(page)
    if page.compression == _LZW:
        return _lzw_decoder(page)
    if page.compression not in (_UNCOMPRESSED, *JPEG_2000, *_OTHERS):
        raise UnreadKind(
            f"its compression {int(page.compression)} is not read; deflate, LZW, JPEG, JPEG 2000,"
            " zstd and WebP are"
        )
    if page.compression in JPEG_2000:
        return _jpeg_2000_decoder(page)
    decode, is_webp, limit = page.decode, page.compression in _WEBP, _most_pixels(page)

    def decoded(data: bytes, index: int) -> NDArray[Any]:
        if is_webp:
            _check_size(_webp_size(data), limit)
        return np.asarray(decode(data, index)[0])[0]

    return decoded


def _jpeg_decoder(page: TiffPage) -> Decoder:
    tables, limit = page.jpegtables, _most_pixels(page)
    wanted = _RGB if page.samplesperpixel == 3 else None
    if page.planarconfig != 1:
        wanted = _GREY  # each plane by itself
    # Aperio's JPEGs hold RGB without saying so. Others tell what they hold, tile by tile, and
    # where RGB is not meant to be stored, libjpeg knows it by what they tell.
    may_be_rgb = wanted == _RGB and page.photometric != _YCBCR

    def decoded(data: bytes, index: int) -> NDArray[Any]:
        header = _jpeg_header(data)
        _check_size((header.width, header.height), limit)
        stored = _RGB if may_be_rgb and header.is_silent_rgb else None
        pixels = imagecodecs.jpeg8_decode(
            data, tables=tables, colorspace=stored, outcolorspace=wanted
        )
        if pixels.dtype != np.uint8:
            raise ValueError(f"its JPEG is of {pixels.dtype}")
        return pixels if pixels.ndim == 3 else pixels[..., None]

    return decoded


def _lzw_decoder(page: TiffPage) -> Decoder:
    if page.fillorder != 1:
        raise UnreadKind("its LZW codes are stored in reverse, which is not read")
    across, down = piece_size(page)
    samples = page.samplesperpixel if page.planarconfig == 1 else 1
    row_bytes = -(-across * samples * page.bitspersample // 8)
    strips = -(-page.imagelength // down)
    last = down if page.is_tiled else page.imagelength - (strips - 1) * down
    # What tifffile does after decompressing is left to it.
    page.compression = _UNCOMPRESSED
    finish = page.decode

    def decoded(data: bytes, index: int) -> NDArray[Any]:
        rows = last if index % strips == strips - 1 else down
        raw = _libtiff(data, row_bytes, rows)
        return np.asarray(finish(raw, index)[0])[0]

    return decoded


def _libtiff(data: bytes, row_bytes: int, rows: int) -> bytearray:
    """Decompress LZW by making it the only strip of a grey picture."""
    entries = [(256, row_bytes), (257, rows), (258, 8), (259, _LZW), (262, 1), (273, 0)]
    entries += [(277, 1), (278, rows), (279, len(data))]
    start = 8 + 2 + 12 * len(entries) + 4
    directory = b"".join(
        struct.pack("<HHII", code, 4, 1, start if code == 273 else value) for code, value in entries
    )
    header = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    with TiffImageFile(io.BytesIO(header + directory + bytes(4) + data)) as picture:
        return bytearray(picture.tobytes())


def _most_pixels(page: TiffPage) -> int:
    across, down = piece_size(page)
    return int(2 * across * down + _SPARE_PIXELS)


def _check_size(size: tuple[int, int], limit: int) -> None:
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


def _jpeg_2000_decoder(page: TiffPage) -> Decoder:
    decode, limit = page.decode, _most_pixels(page)
    # Aperio's 33003 is YCbCr of which nothing in the file tells; Bio-Formats' is what is told.
    silent = page.photometric == _YCBCR or not page.parent.is_ome
    may_be_ycbcr = page.compression == _APERIO_YCBCR and silent

    def decoded(data: bytes, index: int) -> NDArray[Any]:
        header = _jpeg_2000_header(data)
        _check_size((header.width, header.height), limit)
        pixels = np.asarray(decode(data, index)[0])[0]
        return ycbcr_to_rgb(pixels) if may_be_ycbcr and header.is_silent_ycbcr else pixels

    return decoded


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


def _webp_size(data: bytes) -> tuple[int, int]:
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
