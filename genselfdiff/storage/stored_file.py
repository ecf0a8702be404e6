"""A file of which parts are read, wherever it is."""

import io
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from genselfdiff.input_files import open_input
from genselfdiff.storage.places import Place

Range = tuple[int, int]
"""Where bytes begin in a file, and how many they are."""


class StoredFile(ABC):
    """An open file without a position, which threads and forked processes can share.

    Use as a context manager.

    Attributes:
        place: where it is.
        size: in bytes.
    """

    place: Place
    size: int

    @abstractmethod
    def read_at(self, offset: int, count: int) -> bytes:
        """Read ``count`` bytes, or fewer where the file ends before.

        Raises:
            OSError: it cannot be read.
            InputError: it cannot be read, whatever is asked for.
        """

    def expect(self, ranges: Iterable[Range]) -> None:  # noqa: B027  # nothing to do for a disk
        """Say what will be read next, in this order; it replaces what was said before."""

    def want(self, ranges: Iterable[Range]) -> None:  # noqa: B027
        """Say what will be read now, all of it."""

    def metadata(self) -> "StoredFile":
        """The same file, for reading what is small and lies apart, such as directories."""
        return self

    def stream(self) -> BinaryIO:
        """It as Python's files are; closing that does not close it."""
        return io.BufferedReader(_Stream(self))

    @property
    def ahead_bytes(self) -> int:
        """Bytes that are held in memory at most."""
        return 0

    @abstractmethod
    def close(self) -> None:
        """Release it; closing twice is harmless."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class LocalFile(StoredFile):
    """A regular file of this machine's.

    Raises:
        InputError: it cannot be opened, or is a pipe or device.
    """

    def __init__(self, path: Path) -> None:
        self.place = path
        self._file = open_input(path)
        self.size = os.fstat(self._file.fileno()).st_size

    def read_at(self, offset: int, count: int) -> bytes:
        """Read without moving a position."""
        return os.pread(self._file.fileno(), count, offset)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _Stream(io.RawIOBase):
    def __init__(self, file: StoredFile) -> None:
        self.name = file.place.name
        self._file = file
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size}[whence]
        if start + offset < 0:
            raise OSError("there is nothing before the beginning")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        count = max(min(len(buffer), self._file.size - self._position), 0)
        data = self._file.read_at(self._position, count) if count else b""
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
