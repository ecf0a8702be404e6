"""A file of records that only grows: each is there whole, or not at all, whatever is killed."""

import json
import logging
import os
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from genselfdiff.errors import OutputError
from genselfdiff.files import writing
from genselfdiff.input_files import read_bytes
from genselfdiff.text import counted
from genselfdiff.working_files import lock, open_own

logger = logging.getLogger("genselfdiff")

Record = dict[str, Any]


def read_journal(path: Path) -> list[Record]:
    """The records of a journal, none where there is no file.

    What a killed process has left of its last record is none, and a damaged one is left out.

    Raises:
        InputError: the file cannot be read.
    """
    return _records(read_bytes(path), path) if path.exists() else []


class Journal:
    """A journal that is written to, by one process at a time.

    A record is a line: eight hexadecimal digits of its CRC-32, a space, and JSON.

    Args:
        path: the file; made if it is not there, as is its folder.

    Attributes:
        records: what was there when it was opened.

    Raises:
        OutputError: another process has it open, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open_own(path, create=True)
            try:
                if lock(self._file.fileno()) is False:
                    raise OutputError(
                        f"{path.parent}: another gsd view draws there: end that, or name another"
                        " folder with --corrections"
                    )
                _sync_folder(path.parent)
                content = self._file.read()
                # Else the next record would hang on what is left of one that was never whole.
                self._end = content.rfind(b"\n") + 1
                self._file.truncate(self._end)
                self.records = _records(content[: self._end], path)
            except BaseException:
                self._file.close()
                raise

    def append(self, *records: Record) -> None:
        """Add records, all or none; they are on the disk when this returns.

        Raises:
            OutputError: they cannot be written.
        """
        lines = b"".join(map(_line, records))
        with writing(self._path):
            try:
                self._write(lines)
            except OSError:
                os.ftruncate(self._file.fileno(), self._end)
                raise
        self._end += len(lines)

    def _write(self, lines: bytes) -> None:
        # Not through the file's buffer: what a full disk refuses would be written from it later.
        opened = self._file.fileno()
        os.lseek(opened, self._end, os.SEEK_SET)
        left = memoryview(lines)
        while left:
            left = left[os.write(opened, left) :]
        os.fsync(opened)

    def close(self) -> None:
        """Let others write."""
        self._file.close()


def _line(record: Record) -> bytes:
    content = json.dumps(record, separators=(",", ":"), allow_nan=False).encode()
    return b"%08x %b\n" % (zlib.crc32(content), content)


def _records(content: bytes, path: Path) -> list[Record]:
    found: list[Record] = []
    damaged = 0
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        crc, _, text = line.partition(b" ")
        record = None
        if crc == b"%08x" % zlib.crc32(text):
            with suppress(ValueError, RecursionError):
                record = json.loads(text)
        if isinstance(record, dict):
            found.append(record)
        else:
            damaged += 1
    if damaged:
        logger.warning("%s: left out: %s", path, counted(damaged, "damaged record"))
    return found


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
