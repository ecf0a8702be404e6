"""Files that grow over several runs, of which any can be killed."""

import json
import os
import zlib
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from genselfdiff.errors import InUseError, OutputError
from genselfdiff.working_files import failing_as, is_at, lock, open_own


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
        with failing_as(self.target, self.partial, self._journal):
            try:
                self._open_locked()
                self._read_records()
                end = self.records[-1]["end"] if self.records else 0
                self.stream.truncate(end)
                self.stream.seek(end)
            except BaseException:
                self._give_up()
                raise
        return self

    def record(self, entry: dict[str, Any]) -> None:
        """Note that everything written so far is final, and ``entry`` with it.

        Does nothing without a purpose.
        """
        if self._purpose is None:
            return
        with failing_as(self.target, self.partial, self._journal):
            self.stream.flush()
            os.fsync(self.stream.fileno())
            entry = entry | {"end": self.stream.tell()}
            lines = [] if self._is_begun else [_line({"purpose": self._purpose})]
            with open_own(self._journal, create=True) as journal:
                journal.seek(0, os.SEEK_END)
                journal.write(b"".join([*lines, _line(entry)]))
                journal.flush()
                os.fsync(journal.fileno())
            self._is_begun = True

    def complete(self) -> None:
        """Sync the file and give it its name; the block must write no more."""
        with failing_as(self.target, self.partial, self._journal):
            self.stream.flush()
            os.fsync(self.stream.fileno())
            if not is_at(self.stream.fileno(), self.partial):
                raise OutputError(
                    f"{self.target}: cannot be written: {self.partial} was removed or replaced"
                    " meanwhile"
                )
            os.replace(self.partial, self.target)
            self._completed = True
            self._journal.unlink(missing_ok=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Interrupted while it was recorded first, the journal tells it already.
        if not self._is_begun and not self._completed and unfinished(self.target) is None:
            self._journal.unlink(missing_ok=True)
            self.partial.unlink(missing_ok=True)
        with suppress(OSError):  # closing tries once more to write what did not fit
            self.stream.close()
        if isinstance(error, OSError):
            with failing_as(self.target, self.partial, self._journal):
                raise error

    def _open_locked(self) -> None:
        while True:
            self.stream = open_own(self.partial, create=True)
            # Where there are no locks, on some network file systems, the user has to take care.
            if lock(self.stream.fileno()) is False:
                raise InUseError(
                    f"{self.target}: another run is writing it: wait for that, or name another file"
                )
            if is_at(self.stream.fileno(), self.partial):
                return
            self.stream.close()  # completed or removed by the run that held it

    def _give_up(self) -> None:
        """Leave no empty file, unless another run holds it.

        A signal can come between the file's creation and the moment when ``stream`` is known.
        """
        if hasattr(self, "stream"):
            self.stream.close()
        with suppress(OSError), open_own(self.partial) as stream:
            if lock(stream.fileno()) is not False and not os.fstat(stream.fileno()).st_size:
                self.partial.unlink(missing_ok=True)

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
                f"{self.target}: was begun with {differences(begun, self._purpose)}: repeat that"
                " command to go on with it, or use --overwrite to start anew"
            )
        if begun is not None and begun == self._purpose:
            # After a power failure the journal can be ahead of the data.
            self.records = [entry for entry in records if 0 <= entry["end"] <= size]
            self._is_begun = bool(self.records)
        lines = [_line({"purpose": begun}), *map(_line, self.records)] if self.records else []
        with suppress(FileNotFoundError), open_own(self._journal) as journal:
            journal.truncate(sum(map(len, lines)))


def unfinished(target: str | Path) -> dict[str, Any] | None:
    """Return the purpose of a ``ResumableFile`` that was begun and not completed."""
    partial, journal = _working_files(Path(target))
    with suppress(OSError):
        return _read_journal(journal)[0] if partial.lstat().st_size else None
    return None


def last_record(target: str | Path) -> dict[str, Any]:
    """The last record of a ``ResumableFile`` that was begun; empty where there is none."""
    with suppress(OSError):
        records = _read_journal(_working_files(Path(target))[1])[1]
        return records[-1] if records else {}
    return {}


def discard(target: str | Path) -> None:
    """Remove what was begun of a ``ResumableFile``.

    Raises:
        OutputError: another run is writing it, or it cannot be removed.
    """
    with ResumableFile(target, {"purpose": "none"}, restart=True):
        pass


def recorded_bytes(target: str | Path) -> int:
    """How long the journal of a ``ResumableFile`` is: it grows with what is finished of it."""
    with suppress(OSError):
        return _working_files(Path(target))[1].stat().st_size
    return 0


def differences(purpose: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Say in what two purposes differ; empty where they do not."""
    return ", ".join(
        f"{key} {purpose.get(key)} instead of {wanted.get(key)}"
        for key in sorted(purpose.keys() | wanted.keys())
        if purpose.get(key) != wanted.get(key)
    )


def _working_files(target: Path) -> tuple[Path, Path]:
    return target.with_name(f".{target.name}.partial"), target.with_name(f".{target.name}.journal")


def _line(entry: dict[str, Any]) -> bytes:
    text = json.dumps(entry, sort_keys=True).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _read_journal(path: Path) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Purpose and records; what follows an incomplete or damaged line does not count."""
    entries: list[dict[str, Any]] = []
    with suppress(OSError, ValueError, RecursionError), open_own(path) as journal:
        for line in journal:
            checksum, text = line.rstrip(b"\n").split(b" ", 1)
            if not line.endswith(b"\n") or int(checksum, 16) != zlib.crc32(text):
                break
            entry = json.loads(text)
            key, kind = ("end", int) if entries else ("purpose", dict)
            if not isinstance(entry, dict) or not isinstance(entry.get(key), kind):
                break
            entries.append(entry)
    return (entries[0]["purpose"], entries[1:]) if entries else (None, [])
