"""Where the frames of a DICOM file are: one tile each, compressed or not (PS3.5, annex A.4)."""

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from genselfdiff.errors import InputError
from genselfdiff.slides.formats.dicom.elements import ITEM, SEQUENCE_END, UNDEFINED, Header
from genselfdiff.storage.places import Url
from genselfdiff.storage.stored_file import StoredFile

Int64 = NDArray[np.int64]

_BEGINNINGS = (b"\xff\xd8", b"\xff\x4f")
"""Of a JPEG and of a JPEG 2000: with what a frame begins, and none of its further fragments."""

_WALKED = 2**26
"""Bytes of a file by URL whose frames are looked for one by one."""

_ENTRIES = 2**24
"""Of a table of frames that is read at once."""


class Frames(NamedTuple):
    """Where frames are: ``offsets`` in their file, and ``counts`` of bytes, of items or pixels.

    A frame that the file lacks has 0 bytes.
    """

    offsets: Int64
    counts: Int64


def plain_frames(header: Header, number: int, frame_bytes: int) -> Frames:
    """Find frames that are not compressed: they follow each other."""
    offsets = header.pixels_at + frame_bytes * np.arange(number, dtype=np.int64)
    return Frames(offsets, np.full(number, frame_bytes, np.int64))


def compressed_frames(file: StoredFile, header: Header, number: int) -> Frames:
    """Find frames in items: by the table that the file has of them, else item by item.

    Raises:
        ValueError: no items are where they should be, or nobody can tell which frame they are of.
    """
    if header.pixel_bytes != UNDEFINED:
        raise ValueError("its compressed pixels are not in items")
    size = _item_size(file, header.pixels_at)
    first = header.pixels_at + 8 + (size or 0)
    if size is None or size > 4 * _ENTRIES:
        raise ValueError("its compressed pixels begin with no table of frames")
    told: Sequence[int] = header.elements.get("ExtendedOffsetTable", ())
    if not told:
        table = file.read_at(header.pixels_at + 8, size)
        told = struct.unpack_from(f"<{len(table) // 4}I", table)
    offsets = first + np.array(told, np.uint64).astype(np.int64)
    if len(offsets) != number or not _are_items(file, offsets, first):
        return _by_items(file, first, number)  # tables of 32 bits run over at 4 GiB
    end = _end_of_items(file, int(offsets[-1]))
    return Frames(offsets, np.diff(offsets, append=end))


def joined(stored: bytes) -> bytes:
    """The frame that lies in one or more items.

    Raises:
        ValueError: these are no items.
    """
    parts, at = [], 0
    while at + 8 <= len(stored):
        tag, size = _head(stored, at)
        if tag != ITEM or size > len(stored) - at - 8:
            raise ValueError("its items are damaged")
        parts.append(stored[at + 8 : at + 8 + size])
        at += 8 + size
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _are_items(file: StoredFile, offsets: Int64, first: int) -> bool:
    """Whether a table of frames can be true: it rises, and items are where it begins and ends."""
    if offsets[0] != first or (np.diff(offsets) < 8).any():
        return False
    return offsets[-1] >= file.size or _item_size(file, int(offsets[-1])) is not None


def _by_items(file: StoredFile, first: int, number: int) -> Frames:
    """Go from item to item; where a frame may have several, its beginning tells which is its first.

    What the file ends before is missing.

    Raises:
        InputError: it is large and by URL: nearly all of it would be fetched.
    """
    if isinstance(file.place, Url) and file.size > _WALKED:
        raise InputError(
            f"{file.place}: has no table of where its frames are: copy the slide, and name the copy"
        )
    starts, are_first, at = [], [], first
    while (size := _item_size(file, at)) is not None:
        if at + 8 + size > file.size:
            break
        starts.append(at)
        are_first.append(file.read_at(at + 8, 2) in _BEGINNINGS)
        at += 8 + size
    offsets = np.array(starts, np.int64)
    if len(offsets) > number:
        offsets = offsets[np.array(are_first)]
        if len(offsets) > number:
            raise ValueError(f"its {len(starts)} items are not those of {number} frames")
    counts = np.diff(offsets, append=at)
    missing = number - len(offsets)
    return Frames(np.pad(offsets, (0, missing)), np.pad(counts, (0, missing)))


def _end_of_items(file: StoredFile, at: int) -> int:
    while (size := _item_size(file, at)) is not None:
        at += 8 + size
    return at


def _item_size(file: StoredFile, at: int) -> int | None:
    """The size of the item that begins there; None: none does."""
    head = file.read_at(at, 8) if at + 8 <= file.size else b""
    if len(head) < 8:
        return None
    tag, size = _head(head, 0)
    return None if tag == SEQUENCE_END or tag != ITEM else size


def _head(data: bytes, at: int) -> tuple[int, int]:
    group, number, size = struct.unpack_from("<HHI", data, at)
    return group << 16 | number, size
