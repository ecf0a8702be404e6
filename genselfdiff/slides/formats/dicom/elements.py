"""The elements of a DICOM file that tell how a whole slide image is stored (PS3.5, section 7).

Only those are kept; others, and sequences of others, are passed over. Nothing that a file says of
lengths is believed: no more is asked for than the file has.
"""

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from genselfdiff.storage.stored_file import StoredFile

Elements = dict[str, Any]
"""Values by keyword: tuples of numbers or of texts, bytes, and of a sequence a list of these."""

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
"""Transfer syntaxes without compression, little endian."""

_BIG_ENDIAN, _DEFLATED = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"

KEYWORDS = {
    0x00020010: ("TransferSyntaxUID", "UI"),
    0x00080008: ("ImageType", "CS"),
    0x00080016: ("SOPClassUID", "UI"),
    0x00080019: ("PyramidUID", "UI"),
    0x0020000E: ("SeriesInstanceUID", "UI"),
    0x00209161: ("ConcatenationUID", "UI"),
    0x00209162: ("InConcatenationNumber", "US"),
    0x00209163: ("InConcatenationTotalNumber", "US"),
    0x00209228: ("ConcatenationFrameOffsetNumber", "UL"),
    0x00280002: ("SamplesPerPixel", "US"),
    0x00280004: ("PhotometricInterpretation", "CS"),
    0x00280006: ("PlanarConfiguration", "US"),
    0x00280008: ("NumberOfFrames", "IS"),
    0x00280010: ("Rows", "US"),
    0x00280011: ("Columns", "US"),
    0x00280030: ("PixelSpacing", "DS"),
    0x00280100: ("BitsAllocated", "US"),
    0x00280101: ("BitsStored", "US"),
    0x00282000: ("ICCProfile", "OB"),
    0x00289110: ("PixelMeasuresSequence", "SQ"),
    0x0040074A: ("ZOffsetInSlideCoordinateSystem", "DS"),
    0x00480001: ("ImagedVolumeWidth", "FL"),
    0x00480002: ("ImagedVolumeHeight", "FL"),
    0x00480006: ("TotalPixelMatrixColumns", "UL"),
    0x00480007: ("TotalPixelMatrixRows", "UL"),
    0x00480105: ("OpticalPathSequence", "SQ"),
    0x00480106: ("OpticalPathIdentifier", "SH"),
    0x00480207: ("OpticalPathIdentificationSequence", "SQ"),
    0x0048021A: ("PlanePositionSlideSequence", "SQ"),
    0x0048021E: ("ColumnPositionInTotalImagePixelMatrix", "SL"),
    0x0048021F: ("RowPositionInTotalImagePixelMatrix", "SL"),
    0x00480302: ("NumberOfOpticalPaths", "UL"),
    0x00480303: ("TotalPixelMatrixFocalPlanes", "UL"),
    0x52009229: ("SharedFunctionalGroupsSequence", "SQ"),
    0x52009230: ("PerFrameFunctionalGroupsSequence", "SQ"),
    0x7FE00001: ("ExtendedOffsetTable", "OV"),
}
"""Of the elements that are kept: keyword and value representation (PS3.6)."""

PIXEL_DATA = 0x7FE00010
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
UNDEFINED = 0xFFFFFFFF

_PREAMBLE = 128
_NUMBERS = {"US": "H", "UL": "I", "SL": "i", "FL": "f", "OV": "Q"}
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
"""Value representations whose lengths have 32 bits, where they are told."""

_BLOCK, _FIRST_BLOCK = 2**18, 2**13
"""Bytes that are read at once; the first is small: many files are asked for their series only."""

_DEEPEST, _MOST_ITEMS = 16, 2**22
"""Sequences within each other, and items of all of them: a slide of a million tiles has fewer."""


class Header(NamedTuple):
    """What stands before the pixels.

    Attributes:
        elements: those of `KEYWORDS`.
        pixels_at: where the value of the pixel data begins; 0: there is none.
        pixel_bytes: its length; `UNDEFINED`: in items, as compressed pixels are.
    """

    elements: Elements
    pixels_at: int
    pixel_bytes: int


def is_dicom(header: bytes) -> bool:
    """Tell by the first 132 bytes whether a file is DICOM."""
    return header[_PREAMBLE : _PREAMBLE + 4] == b"DICM"


def read_header(file: StoredFile, last: int = PIXEL_DATA) -> Header:
    """Read the elements of a file, up to the one of the tag ``last``.

    Raises:
        ValueError: they are damaged, or written in a way that is not read.
        OSError: the file cannot be read.
    """
    walk = _Walk(file, _PREAMBLE + 4)
    elements = walk.elements(file.size, lambda tag: tag >> 16 != 2)
    (syntax,) = elements.get("TransferSyntaxUID") or ("",)
    if syntax in (_BIG_ENDIAN, _DEFLATED):
        kind = "big endian" if syntax == _BIG_ENDIAN else "as a whole compressed"
        raise ValueError(f"it is {kind}, which is not read")
    walk.is_explicit = syntax != IMPLICIT
    elements |= walk.elements(file.size, lambda tag: tag >= PIXEL_DATA or tag > last)
    if walk.at >= file.size or last < PIXEL_DATA:
        return Header(elements, 0, 0)
    tag, length = walk.element()
    return Header(elements, walk.at, length) if tag == PIXEL_DATA else Header(elements, 0, 0)


class _Walk:
    """Goes through the elements of a file, of which it holds a block.

    Attributes:
        at: where it is in the file.
        is_explicit: elements tell their value representations.
    """

    def __init__(self, file: StoredFile, at: int) -> None:
        self.at = at
        self.is_explicit = True
        self._file = file
        self._block, self._start = b"", 0
        self._count = 0

    def element(self) -> tuple[int, int]:
        """Pass the head of an element; return its tag and the length of its value."""
        offset = self._held(12)
        group, number = struct.unpack_from("<HH", self._block, offset)
        tag = group << 16 | number
        if not self.is_explicit or group == 0xFFFE:
            self.at += 8
            return tag, int(struct.unpack_from("<I", self._block, offset + 4)[0])
        if self._block[offset + 4 : offset + 6] in _LONG:
            self.at += 12
            return tag, int(struct.unpack_from("<I", self._block, offset + 8)[0])
        self.at += 8
        return tag, int(struct.unpack_from("<H", self._block, offset + 6)[0])

    def elements(self, end: int, is_beyond: Callable[[int], bool], depth: int = 0) -> Elements:
        """Read elements up to ``end``, the end of an item, or the first that ``is_beyond``."""
        found: Elements = {}
        while self.at + 8 <= end:
            before = self.at
            tag, length = self.element()
            if tag == ITEM_END:
                break
            if is_beyond(tag):
                self.at = before
                break
            keyword, kind = KEYWORDS.get(tag, ("", ""))
            if kind == "SQ":
                found[keyword] = self._items(length, depth + 1)
            elif length == UNDEFINED:
                self._items(length, depth + 1, is_kept=False)
            elif keyword:
                found[keyword] = _value(kind, self._take(length))
            else:
                self._skip(length)
        return found

    def _items(self, length: int, depth: int, is_kept: bool = True) -> list[Elements]:
        """Read the items of a sequence, whose head has been passed; or pass over them."""
        if depth > _DEEPEST:
            raise ValueError("its sequences lie deeper within each other than those of any slide")
        end = self._file.size if length == UNDEFINED else self._end(length)
        items = []
        while self.at + 8 <= end:
            tag, size = self.element()
            if tag == SEQUENCE_END:
                break
            if tag != ITEM:
                raise ValueError(
                    f"it has an element {tag:08x} where an item of a sequence should be"
                )
            self._count += 1
            if self._count > _MOST_ITEMS:
                raise ValueError("its sequences have more items than those of any slide")
            if not is_kept and size != UNDEFINED:  # elements, or a part of compressed pixels
                self._skip(size)
                continue
            stop = end if size == UNDEFINED else self._end(size)
            items.append(self.elements(stop, lambda _: False, depth))
        return items

    def _held(self, count: int) -> int:
        """Hold the next bytes, fewer at the end of the file; return where they are in the block."""
        offset = self.at - self._start
        if not 0 <= offset <= len(self._block) - count:
            size = _BLOCK if self._block else _FIRST_BLOCK
            self._block = self._file.read_at(self.at, max(count, size))
            self._start, offset = self.at, 0
            self._block += bytes(max(0, count - len(self._block)))
        return offset

    def _end(self, length: int) -> int:
        if self.at + length > self._file.size:
            raise ValueError("it ends before its elements do")
        return self.at + length

    def _skip(self, length: int) -> None:
        self.at = self._end(length)

    def _take(self, length: int) -> bytes:
        end = self._end(length)
        offset = self._held(length)
        value = self._block[offset : offset + length]
        self.at = end
        return value


def _value(kind: str, stored: bytes) -> Any:
    if kind == "OB":
        return stored
    if kind in _NUMBERS:
        code = _NUMBERS[kind]
        count = len(stored) // struct.calcsize(code)
        return struct.unpack_from(f"<{count}{code}", stored)
    texts = stored.decode("latin-1").split("\\")
    texts = [text.strip(" \0") for text in texts]
    if kind == "IS":
        return tuple(int(text) for text in texts if text)
    if kind == "DS":
        return tuple(float(text) for text in texts if text)
    return tuple(texts)
