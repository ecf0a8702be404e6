"""Looking through the directories of a TIFF before anybody believes what they say.

tifffile follows links wherever they lead: directories in a circle, or a tile taken for one, keep
it busy for minutes, and memory for as many values as an entry claims is asked for at once.
"""

import logging
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from genselfdiff.storage.stored_file import StoredFile

logger = logging.getLogger("genselfdiff")

_MOST_DIRECTORIES = 10_000
_MOST_ENTRIES = 200_000
"""In all directories together; a page of a slide has about 30."""

_MOST_VALUE_BYTES = 2**27
"""Of all values that directories point to, each as often as it is pointed to.

A level of a million tiles has 16 MB, a description of Philips' with pictures in it some.
"""

_UNREAD = 32768
"""Tags from here on are private, but for a few; where their values lie decides nothing here."""

_SUBIFDS = 330
_BYTE_COUNTS, _COUNT_TYPES = (279, 325), {3: "u2", 4: "u4", 16: "u8"}
_TYPE_SIZES = np.array([0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8], np.float64)
"""Bytes of a value of each type; 0: there is no such type, and entries of it are passed over."""


def is_tiff(header: bytes) -> bool:
    """Tell by the first bytes whether a file is a TIFF or BigTIFF."""
    return header[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def check_directories(file: StoredFile, pieces: bool = False) -> None:
    """Check that all directories of a TIFF, and what they point to, lie in the file, each once.

    Links that lead beyond its end are warned of: some writers leave one after the last directory.

    Args:
        file: an open TIFF.
        pieces: whether no tile or strip may be larger than the file either.

    Raises:
        ValueError: they do not, or there are more than any slide has.
        OSError: the file cannot be read.
    """
    _Walk(file, pieces).follow()


class _Walk:
    def __init__(self, file: StoredFile, pieces: bool) -> None:
        self._pieces = pieces
        self._name = file.place
        self._file = file
        self._size = file.size
        header = file.read_at(0, 16)
        order: Literal["<", ">"] = "<" if header[:2] == b"II" else ">"
        self._order: Literal["<", ">"] = order
        self._is_big = 43 in (header[2], header[3])
        word = 8 if self._is_big else 4
        self._word = np.dtype(f"{order}u{word}")
        self._count = np.dtype(f"{order}u{8 if self._is_big else 2}")
        fields = [("code", f"{order}u2"), ("type", f"{order}u2")]
        fields += [("count", self._word.str), ("value", self._word.str)]
        self._entry = np.dtype(fields)
        self._first = 8 if self._is_big else 4
        self._entries = 0
        self._directories = 0
        self._value_bytes = 0.0

    def follow(self) -> None:
        at, seen = self._number(self._first, self._word), set[int]()
        while at:
            if at in seen:
                raise ValueError("its directories follow each other in a circle")
            seen.add(at)
            following, below = self._look_at(at)
            for place in filter(self._leads_into_the_file, below):
                self._look_at(place)
            at = following if self._leads_into_the_file(following) else 0

    def _leads_into_the_file(self, link: int) -> bool:
        if link + self._count.itemsize <= self._size:
            return True
        logger.warning(
            "%s: a link after its directory %d leads beyond its end; unless its writer has left it"
            " there, the file was cut off, and a picture or level is missing",
            *(self._name, self._directories),
        )
        return False

    def _look_at(self, at: int) -> tuple[int, list[int]]:
        """Check the directory there; returns the place of the next and of those below it."""
        entries = self._number(at, self._count)
        self._directories += 1
        self._entries += entries
        if self._directories > _MOST_DIRECTORIES or self._entries > _MOST_ENTRIES:
            raise ValueError("its directories have more entries than those of any slide")
        first = at + self._count.itemsize
        data = self._bytes(first, entries * self._entry.itemsize)
        table = np.frombuffer(data, self._entry)
        kinds = np.where(table["type"] < len(_TYPE_SIZES), table["type"], 0)
        sizes = _TYPE_SIZES[kinds] * table["count"]
        is_elsewhere = sizes > self._word.itemsize
        is_beyond = is_elsewhere & (sizes + table["value"] > self._size)
        lost = table["code"][is_beyond & (table["code"] < _UNREAD)]
        if lost.size:
            raise ValueError(f"the values of its tag {lost[0]} lie beyond its end")
        self._value_bytes += sizes[is_elsewhere & ~is_beyond].sum()
        if self._value_bytes > _MOST_VALUE_BYTES:
            raise ValueError(
                f"its directories point to {self._value_bytes:,.0f} bytes of values, more than"
                " those of any slide"
            )
        if self._pieces:
            self._check_pieces(table)
        below = [
            place
            for entry in table[table["code"] == _SUBIFDS]
            for place in self._places(int(entry["count"]), int(entry["value"]))
        ]
        return self._number(first + len(data), self._word), below

    def _check_pieces(self, table: NDArray[np.void]) -> None:
        for entry in table[np.isin(table["code"], _BYTE_COUNTS)]:
            kind = _COUNT_TYPES.get(int(entry["type"]))
            if kind is None:
                continue
            number = np.dtype(kind).newbyteorder(self._order)
            count, value = int(entry["count"]), entry["value"]
            inline = count * number.itemsize <= self._word.itemsize
            data = value.tobytes() if inline else self._bytes(int(value), count * number.itemsize)
            if (np.frombuffer(data, number) > self._size).any():
                raise ValueError("stored pieces of it are larger than all of it")

    def _places(self, count: int, value: int) -> list[int]:
        if count <= 1:
            return [value]
        if count > _MOST_DIRECTORIES:
            raise ValueError("its directories have more entries than those of any slide")
        size = self._word.itemsize
        return np.frombuffer(self._bytes(value, count * size), self._word).tolist()

    def _number(self, at: int, kind: np.dtype[np.unsignedinteger]) -> int:
        return int(np.frombuffer(self._bytes(at, kind.itemsize), kind)[0])

    def _bytes(self, at: int, count: int) -> bytes:
        if at + count > self._size:
            raise ValueError("a directory lies beyond its end")
        return self._file.read_at(at, count)
