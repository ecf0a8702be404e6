"""Decoding a tile or strip of a TIFF with codecs that survive damaged data.

Damage is an exception here, never the end of the process. Of imagecodecs, the LZW decoder and the
one for lossless JPEG, which stands in where libjpeg refuses, write beyond their memory when a
stream is damaged (seen in 2026.3.6). libtiff decodes LZW instead, and libjpeg alone JPEG; codecs
of schemes in which no slide is stored are not let near data at all.
"""

import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import TiffImageFile
from tifffile import TiffPage

from genselfdiff.slides.formats.codestreams import (
    GREY,
    RGB,
    check_size,
    decode_jpeg,
    decode_jpeg_2000,
    most_pixels,
    webp_size,
)
from genselfdiff.slides.stored.pixel_format import JPEG, JPEG_2000, UnreadKind

Decoder = Callable[[bytes, int], NDArray[Any]]
"""From the stored bytes and the number of a piece to (h, w, samples)."""

_UNCOMPRESSED, _LZW = 1, 5
_APERIO_YCBCR = 33003
_WEBP = (34927, 50001)
_OTHERS = (8, 32773, 32946, 34925, 34926, 50000, *_WEBP)
"""Deflate, PackBits, LZMA, zstd and WebP, the last ones under old and new numbers."""

_YCBCR = 6


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
    decode, is_webp, limit = page.decode, page.compression in _WEBP, most_pixels(*piece_size(page))

    def decoded(data: bytes, index: int) -> NDArray[Any]:
        if is_webp:
            check_size(webp_size(data), limit)
        return np.asarray(decode(data, index)[0])[0]

    return decoded


def _jpeg_decoder(page: TiffPage) -> Decoder:
    tables, limit = page.jpegtables, most_pixels(*piece_size(page))
    wanted = RGB if page.samplesperpixel == 3 else None
    if page.planarconfig != 1:
        wanted = GREY  # each plane by itself
    # Aperio's JPEGs hold RGB without saying so. Others tell what they hold, tile by tile, and
    # where RGB is not meant to be stored, libjpeg knows it by what they tell.
    may_be_rgb = wanted == RGB and page.photometric != _YCBCR

    def decoded(data: bytes, index: int) -> NDArray[Any]:
        return decode_jpeg(data, limit, wanted, may_be_rgb=may_be_rgb, tables=tables)

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


def _jpeg_2000_decoder(page: TiffPage) -> Decoder:
    decode, limit = page.decode, most_pixels(*piece_size(page))
    # Aperio's 33003 is YCbCr of which nothing in the file tells; Bio-Formats' is what is told.
    silent = page.photometric == _YCBCR or not page.parent.is_ome
    may_be_ycbcr = page.compression == _APERIO_YCBCR and silent

    def decoded(data: bytes, index: int) -> NDArray[Any]:
        def one(stored: bytes) -> NDArray[Any]:
            return np.asarray(decode(stored, index)[0])[0]

        return decode_jpeg_2000(data, limit, may_be_ycbcr=may_be_ycbcr, decode=one)

    return decoded
