"""A file in object storage or on a server, of which parts are fetched ahead of being read."""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple
from weakref import WeakSet

from genselfdiff.storage.filesystems import Changed
from genselfdiff.storage.object_ranges import HEAD, ObjectRanges, open_ranges
from genselfdiff.storage.places import Url
from genselfdiff.storage.read_ahead import AHEAD, HELD, ReadAhead, cut
from genselfdiff.storage.stored_file import Range, StoredFile

WHOLE_BYTES = 2**27
"""Of whole files that are held, for all of this process together."""

_BLOCKS = 64
"""Of `HEAD` bytes each, held of a file while its directories are read."""


class RemoteFile(StoredFile):
    """An object as it was when it was opened, see `StoredFile`.

    Attributes:
        stamp: see `ObjectRanges`.

    Raises:
        InputError: it is not there, may not be read, or what reads such a URL is not installed.
    """

    def __init__(self, url: Url) -> None:
        self.place: Url = url
        self._lock = threading.Lock()
        self._connection: _Connection | None = None
        self.size, self.stamp = 0, ""
        ranges = self._connected().ranges
        self.size, self.stamp = ranges.size, ranges.stamp
        _open_files.add(self)

    @property
    def ahead_bytes(self) -> int:
        """Bytes of what is fetched ahead, and of whole files."""
        return HELD + WHOLE_BYTES

    def read_at(self, offset: int, count: int) -> bytes:
        """Read from what was fetched ahead, or fetch it."""
        count = min(count, self.size - offset)
        if count <= 0:
            return b""
        whole = _whole_files.get(self._key)
        if whole is not None:
            return whole[offset : offset + count]
        return self._connected().ahead.take((offset, count))

    def expect(self, ranges: Iterable[Range]) -> None:
        """Fetch in the background what will be read."""
        if _whole_files.get(self._key) is None:
            self._connected().ahead.expect(filter(self._can_be_fetched, ranges))

    def want(self, ranges: Iterable[Range]) -> None:
        """Fetch at once what is read now."""
        if _whole_files.get(self._key) is None:
            self._connected().ahead.want(filter(self._can_be_fetched, ranges))

    def metadata(self) -> StoredFile:
        """The same file, of which blocks are held: what is read lies in few of them."""
        return _Blocks(self, self._connected().ranges.head)

    def hold_whole(self) -> bytes:
        """Fetch all of it, which later readings of the same content find, while there is room."""
        held = _whole_files.get(self._key)
        if held is None:
            parts = cut(0, self.size)
            self.want(parts)
            held = b"".join(self.read_at(*part) for part in parts)
            if self.stamp:
                _whole_files.keep(self._key, held)
        return held

    def close(self) -> None:
        """Fetch nothing more."""
        with self._lock:
            if self._connection is not None:
                self._connection.ahead.close()
                self._connection = None

    def _can_be_fetched(self, part: Range) -> bool:
        """Whether it lies in the file; what a damaged file points to need not."""
        offset, count = part
        return 0 < count <= AHEAD and 0 <= offset <= self.size - count

    @property
    def _key(self) -> tuple[str, str, int]:
        return self.place.address, self.stamp, self.size

    def _connected(self) -> "_Connection":
        """The connection, which a forked process makes anew."""
        with self._lock:
            if self._connection is None:
                ranges = open_ranges(self.place)
                if self in _open_files and (ranges.size, ranges.stamp) != (self.size, self.stamp):
                    raise Changed(self.place)
                self._connection = _Connection(ranges, ReadAhead(ranges.fetch))
            return self._connection

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._connection = None


class _Connection(NamedTuple):
    ranges: ObjectRanges
    ahead: ReadAhead


class _Blocks(StoredFile):
    """A view of a remote file for reading directories; closing it is not needed."""

    def __init__(self, file: RemoteFile, head: bytes) -> None:
        self.place, self.size = file.place, file.size
        self._file = file
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        if head:
            self._blocks[0] = head

    def read_at(self, offset: int, count: int) -> bytes:
        count = min(count, self.size - offset)
        if count <= 0:
            return b""
        first, last = offset // HEAD, (offset + count - 1) // HEAD
        if last - first >= _BLOCKS // 2:
            parts = cut(offset, offset + count)
            self._file.want(parts)
            return b"".join(self._file.read_at(*part) for part in parts)
        missing = {i: (i * HEAD, HEAD) for i in range(first, last + 1) if i not in self._blocks}
        missing = {i: (at, min(length, self.size - at)) for i, (at, length) in missing.items()}
        self._file.want(missing.values())
        for index, part in missing.items():
            self._blocks[index] = self._file.read_at(*part)
        data = b"".join(self._blocks[index] for index in range(first, last + 1))
        while len(self._blocks) > _BLOCKS:
            self._blocks.popitem(last=False)
        return data[offset - first * HEAD :][:count]

    def close(self) -> None:
        pass


class _WholeFiles:
    """The contents of small files, of which the oldest go when there is too much of them."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[str, str, int], bytes] = OrderedDict()

    def get(self, key: tuple[str, str, int]) -> bytes | None:
        with self._lock:
            return self._held.get(key)

    def keep(self, key: tuple[str, str, int], content: bytes) -> None:
        with self._lock:
            self._held[key] = content
            while sum(map(len, self._held.values())) > WHOLE_BYTES:
                self._held.popitem(last=False)


_whole_files = _WholeFiles()
_open_files: "WeakSet[RemoteFile]" = WeakSet()


def _after_fork() -> None:
    """Threads and sessions stay in the parent, and may hold locks that nobody frees here."""
    _whole_files.reset()
    for file in list(_open_files):
        file._after_fork()


os.register_at_fork(after_in_child=_after_fork)
