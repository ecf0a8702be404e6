"""Output files that appear whole or not at all."""

import csv
import errno
import fcntl
import io
import json
import os
import secrets
import zlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from genselfdiff.errors import OutputError, one_line
from genselfdiff.text import spreadsheet_cell

_WRITE_ERRORS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
)
"""What writing fails with; the error names no file then."""

_LOCKED = (errno.EAGAIN, errno.EACCES)


def refuse_existing(target: Path, overwrite: bool) -> None:
    """Raise OutputError where ``target`` exists and is not to be overwritten."""
    if target.exists() and not overwrite:
        raise OutputError(f"{target}: exists already: name another file, or use --overwrite")


def refuse_inputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise OutputError if an output is a file that is also read, by this or another name.

    Every command asks this of all that it writes and reads, also where it may overwrite.
    """
    read = {mark for path in inputs for mark in _marks(path)}
    for output in outputs:
        if not read.isdisjoint(_marks(output)):
            raise OutputError(f"{output}: is an input of this run: name another file")


def _marks(path: Path) -> set[Hashable]:
    """Where a path leads, and which file is there: one file can have several names."""
    marks: set[Hashable] = {os.path.realpath(path)}
    if path.exists():
        status = path.stat()
        marks.add((status.st_dev, status.st_ino))
    return marks


@contextmanager
def atomic_file(target: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``target``; on success sync it and rename it to ``target``.

    If the block raises, the temporary file is removed and ``target`` stays as it was.

    Raises:
        OutputError: the folder is missing or not writable, or the disk is full.
    """
    target = Path(target)
    temporary = target.parent / f".{target.name}.{secrets.token_hex(4)}{target.suffix}"
    try:
        temporary.touch(exist_ok=False)
        permissions = temporary.stat().st_mode  # those of any new file: the umask is in them
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {one_line(error)}") from error
    try:
        with _failing_as(target, temporary):
            yield temporary
            os.chmod(temporary, permissions)  # safetensors puts a private file in its place
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn every OSError of the block into an OutputError that names ``target``."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {one_line(error)}") from error


def write_text(target: str | Path, text: str) -> None:
    """Write ``text`` to ``target`` as UTF-8, whole or not at all."""
    with atomic_file(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(target: str | Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table with a line of its columns' names, whole or not at all.

    Texts go through `spreadsheet_cell`.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(spreadsheet_cell, columns))
    writer.writerows(map(spreadsheet_cell, row) for row in rows)
    write_text(target, text.getvalue())


def write_once(target: Path, text: str) -> bool:
    """Write ``text`` as UTF-8 unless another process has written ``target``; tell if it was us.

    Where the file system has hard links it appears whole; elsewhere a reader may come too early.

    Raises:
        OutputError: the folder is missing or not writable, or the disk is full.
    """
    temporary = target.parent / f".{target.name}.{secrets.token_hex(4)}"
    try:
        with _failing_as(target, temporary, target):
            with temporary.open("x", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
            except OSError:
                return _write_exclusively(target, text)
            return True
    finally:
        temporary.unlink(missing_ok=True)


def _write_exclusively(target: Path, text: str) -> bool:
    try:
        with target.open("x", encoding="utf-8") as file:
            try:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                target.unlink()
                raise
    except FileExistsError:
        return False
    return True


class ResumableFile:
    """A file that appears whole or not at all, and that a later run goes on with.

    It grows as ``.<name>.partial`` beside ``target``. With a ``purpose``, ``.<name>.journal`` tells
    what is finished of it: lines of JSON, each with its CRC-32; the first is the purpose. If the
    block raises or the process is killed, both stay for the next run with the same purpose.
    Without one, and while nothing is recorded, nothing is left.

    Use as a context manager; ``complete`` puts the file under its name.

    Args:
        target: the file.
        purpose: what it is made of, as JSON can hold it; None: it cannot be resumed.
        restart: forget what a run with another purpose has begun.

    Attributes:
        records: what earlier runs have recorded, the oldest first.
        stream: open for writing, its end where the last record was made.

    Raises:
        OutputError: another process is writing the file, another purpose has begun it, the folder
            is missing or not writable, or the disk is full.
    """

    def __init__(
        self, target: str | Path, purpose: dict[str, Any] | None = None, *, restart: bool = False
    ) -> None:
        self.target = Path(target)
        self.partial, self._journal = _working_files(self.target)
        self._purpose = purpose if purpose is None else json.loads(json.dumps(purpose))
        self._restart = restart
        self._completed = False
        self._is_begun = False
        self.records: list[dict[str, Any]] = []
        self.stream: BinaryIO

    def __enter__(self) -> "ResumableFile":
        with _failing_as(self.target, self.partial, self._journal):
            self.stream = self._open_locked()
            try:
                self._read_records()
                end = self.records[-1]["end"] if self.records else 0
                self.stream.truncate(end)
                self.stream.seek(end)
            except BaseException:
                if not os.fstat(self.stream.fileno()).st_size:
                    self.partial.unlink(missing_ok=True)
                self.stream.close()
                raise
        return self

    def record(self, entry: dict[str, Any]) -> None:
        """Note that everything written so far is final, and ``entry`` with it.

        Does nothing without a purpose.
        """
        if self._purpose is None:
            return
        with _failing_as(self.target, self.partial, self._journal):
            self.stream.flush()
            os.fsync(self.stream.fileno())
            entry = entry | {"end": self.stream.tell()}
            lines = [] if self._is_begun else [_line({"purpose": self._purpose})]
            with open(self._journal, "ab") as journal:
                journal.write(b"".join([*lines, _line(entry)]))
                journal.flush()
                os.fsync(journal.fileno())
            self._is_begun = True

    def complete(self) -> None:
        """Sync the file and give it its name; the block must write no more."""
        with _failing_as(self.target, self.partial, self._journal):
            self.stream.flush()
            os.fsync(self.stream.fileno())
            os.replace(self.partial, self.target)
            self._completed = True
            self._journal.unlink(missing_ok=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._is_begun and not self._completed:
            self._journal.unlink(missing_ok=True)
            self.partial.unlink(missing_ok=True)
        with suppress(OSError):  # closing tries once more to write what did not fit
            self.stream.close()
        if isinstance(error, OSError):
            with _failing_as(self.target, self.partial, self._journal):
                raise error

    def _open_locked(self) -> BinaryIO:
        while True:
            stream = open(os.open(self.partial, os.O_RDWR | os.O_CREAT, 0o666), "r+b")  # noqa: SIM115
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in _LOCKED:
                    stream.close()
                    raise OutputError(
                        f"{self.target}: another run is writing it: wait for that, or name another"
                        " file"
                    ) from error
                # Some network file systems have no locks: there the user has to take care.
            with suppress(OSError):
                if os.path.samestat(os.fstat(stream.fileno()), self.partial.stat()):
                    return stream
            stream.close()  # completed or removed by the run that held it

    def _read_records(self) -> None:
        size = os.fstat(self.stream.fileno()).st_size
        # Without data a journal tells nothing: it was left where the file was given its name.
        begun, records = _read_journal(self._journal) if size else (None, [])
        if begun is not None and begun != self._purpose and not self._restart:
            if self._purpose is None:
                raise OutputError(
                    f"{self.target}: another command has begun it and was stopped: repeat that"
                    f" command to go on with it, or delete {self.partial}"
                )
            raise OutputError(
                f"{self.target}: {begun_otherwise(begun, self._purpose)}: repeat that command to"
                " go on with it, or use --overwrite to start anew"
            )
        if begun is not None and begun == self._purpose:
            # After a power failure the journal can be ahead of the data.
            self.records = [entry for entry in records if entry["end"] <= size]
            self._is_begun = bool(self.records)
        lines = [_line({"purpose": begun}), *map(_line, self.records)] if self.records else []
        with suppress(FileNotFoundError), open(self._journal, "r+b") as journal:
            journal.truncate(sum(map(len, lines)))


def unfinished(target: str | Path) -> dict[str, Any] | None:
    """Return the purpose of a ``ResumableFile`` that was begun and not completed."""
    partial, journal = _working_files(Path(target))
    return _read_journal(journal)[0] if partial.exists() and partial.stat().st_size else None


def begun_otherwise(begun: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Say in what two purposes differ."""
    differences = [
        f"{key} {begun.get(key)} instead of {wanted.get(key)}"
        for key in sorted(begun.keys() | wanted.keys())
        if begun.get(key) != wanted.get(key)
    ]
    return f"was begun with {', '.join(differences)}"


def _working_files(target: Path) -> tuple[Path, Path]:
    return (
        target.parent / f".{target.name}.partial",
        target.parent / f".{target.name}.journal",
    )


def _line(entry: dict[str, Any]) -> bytes:
    text = json.dumps(entry, sort_keys=True).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _read_journal(path: Path) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Purpose and records; what follows an incomplete or damaged line does not count."""
    entries: list[dict[str, Any]] = []
    with suppress(OSError, ValueError), path.open("rb") as journal:
        for line in journal:
            checksum, text = line.rstrip(b"\n").split(b" ", 1)
            if not line.endswith(b"\n") or int(checksum, 16) != zlib.crc32(text):
                break
            entries.append(json.loads(text))
    return (entries[0]["purpose"], entries[1:]) if entries else (None, [])


@contextmanager
def _failing_as(target: Path, *temporary: Path) -> Iterator[None]:
    """Turn what writing fails with into an OutputError that names ``target``."""
    try:
        yield
    except OSError as error:
        unnamed = error.filename is None and error.errno in _WRITE_ERRORS
        if isinstance(error, OutputError) or not (unnamed or error.filename in map(str, temporary)):
            raise
        raise OutputError(f"{target}: cannot be written: {one_line(error)}") from error
