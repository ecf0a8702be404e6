"""Writing a BigTIFF tile by tile, its directories last."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

import numpy as np

_SUB_IFDS = 330
_HEADER = struct.Struct("<2sHHHQ")
_ENTRY = struct.Struct("<HHQ8s")
_TYPES = {
    "ascii": (2, 1),
    "short": (3, 2),
    "long": (4, 4),
    "rational": (5, 8),
    "long8": (16, 8),
    "ifd8": (18, 8),
}
"""Number in the file and bytes per value of each type."""


@dataclass(frozen=True)
class Tag:
    """One entry of a directory: ``data`` holds its little-endian values."""

    code: int
    kind: str
    data: bytes


def number_tag(code: int, kind: str, *values: int) -> Tag:
    """Make a tag of whole numbers; ``kind`` is short, long or long8."""
    size = _TYPES[kind][1]
    return Tag(code, kind, b"".join(value.to_bytes(size, "little") for value in values))


def array_tag(code: int, values: Sequence[int]) -> Tag:
    """Make a tag of many 64-bit numbers."""
    return Tag(code, "long8", np.asarray(values, "<u8").tobytes())


def text_tag(code: int, text: str) -> Tag:
    """Make a tag of text, which must be ASCII."""
    return Tag(code, "ascii", text.encode("ascii") + b"\0")


def ratio_tag(code: int, value: float) -> Tag:
    """Make a tag of the fraction closest to ``value``, a positive number below 2**32."""
    if value < 1:
        inverse = Fraction(1 / value).limit_denominator(max(1, int(2**31 * value)))
        fraction = 1 / inverse
    else:
        fraction = Fraction(value).limit_denominator(max(1, int(2**31 / value)))
    return Tag(code, "rational", struct.pack("<II", fraction.numerator, fraction.denominator))


class BigTiffFile:
    """A BigTIFF under construction.

    Until ``finish`` the header points to no directory, so that a part of a file opens nowhere.

    Args:
        file: positioned at its end.
        end: bytes that are there already, of an interrupted run.
    """

    def __init__(self, file: BinaryIO, end: int = 0) -> None:
        self._file = file
        self._end = end
        if not end:
            self._append(_HEADER.pack(b"II", 43, 8, 0, 0))

    def add_data(self, data: bytes) -> int:
        """Append an encoded tile and return its offset."""
        return self._append(data)

    def finish(self, pages: Sequence[Sequence[Tag]], *, within: bool = False) -> None:
        """Write the directories of ``pages`` and complete the header.

        The first names the next, and so on; ``within``: the first holds all others as SubIFDs.
        """
        first, *others = pages
        following = 0
        places: list[int] = []
        for tags in reversed(others):  # each names the place of the one after it
            following = self._directory(tags, 0 if within else following)
            places.insert(0, following)
        if within and others:
            held = Tag(_SUB_IFDS, "ifd8", np.asarray(places, "<u8").tobytes())
            following = self._directory([*first, held], 0)
        else:
            following = self._directory(first, following)
        self._file.seek(0)
        self._file.write(_HEADER.pack(b"II", 43, 8, 0, following))

    def _directory(self, tags: Sequence[Tag], following: int) -> int:
        entries = b"".join(self._entry(tag) for tag in sorted(tags, key=lambda tag: tag.code))
        return self._append(struct.pack("<Q", len(tags)) + entries + struct.pack("<Q", following))

    def _entry(self, tag: Tag) -> bytes:
        number, size = _TYPES[tag.kind]
        data = tag.data if len(tag.data) <= 8 else struct.pack("<Q", self._append(tag.data))
        return _ENTRY.pack(tag.code, number, len(tag.data) // size, data)

    def _append(self, data: bytes) -> int:
        offset = self._end
        padding = bytes(-len(data) % 8)  # directories and their values start at whole words
        self._file.write(data + padding)
        self._end += len(data) + len(padding)
        return offset
