"""Output files that appear whole or not at all."""

import csv
import io
import os
import re
import stat
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from genselfdiff.errors import OutputError, one_line
from genselfdiff.text import spreadsheet_cell
from genselfdiff.working_files import create_beside, failing_as, require_room_for_name


def require_folder(target: Path) -> None:
    """Raise OutputError where the folder of ``target`` is not there."""
    if not os.path.isdir(target.parent):  # also where the name is too long
        raise OutputError(f"{target}: the folder {target.parent} does not exist: create it first")


def names_file(path: Path) -> bool:
    """Whether a path that is to become a folder has an ending as files have.

    That begins with a letter, unlike what stands behind the dot of a version. A folder that is
    there has none.
    """
    return re.fullmatch(r"\.[A-Za-z]\w*", path.suffix) is not None and not os.path.isdir(path)


def refuse_existing(target: Path, overwrite: bool) -> None:
    """Raise OutputError where a file called ``target`` is not to be written.

    A file that is there is replaced with ``overwrite`` only; a folder, a device or a link never.
    Its folder has to be there, and its name short enough to write it under another first.
    """
    try:
        require_room_for_name(target)
        mode = target.lstat().st_mode
    except FileNotFoundError:
        require_folder(target)
        return
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {one_line(error)}") from error
    if stat.S_ISLNK(mode):
        raise OutputError(
            f"{target}: is a link to {target.readlink()}: name that file itself, or remove the link"
        )
    if stat.S_ISDIR(mode):
        raise OutputError(f"{target}: is a folder: name a file")
    if not stat.S_ISREG(mode):
        raise OutputError(f"{target}: is a device or a pipe: name a file")
    if not overwrite:
        raise OutputError(f"{target}: exists already: name another file, or use --overwrite")


def refuse_inputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise OutputError if an output is a file that is also read, by this or another name.

    So it is if an output is a folder that holds one, or if two outputs are one file. Every command
    asks this of all that it writes and reads, also where it may overwrite.
    """
    inputs = list(inputs)
    read = {mark for path in inputs for mark in _marks(path)}
    folders = {
        str(folder) for path in read if isinstance(path, str) for folder in Path(path).parents
    }
    places: set[str] = set()
    for output in outputs:
        if not read.isdisjoint(_marks(output)):
            raise OutputError(f"{output}: is an input of this run: name another file")
        place = os.path.realpath(output)
        if place in folders:
            raise OutputError(f"{output}: holds an input of this run: name another folder")
        if place in places:
            raise OutputError(f"{output}: is named for two results: name another file for one")
        places.add(place)


def _marks(path: Path) -> set[Hashable]:
    """Where a path leads, and which file is there: one file can have several names."""
    marks: set[Hashable] = {os.path.realpath(path)}
    with suppress(OSError):
        status = path.stat()
        marks.add((status.st_dev, status.st_ino))
    return marks


@contextmanager
def atomic_file(target: str | Path, folder: Path | None = None) -> Iterator[Path]:
    """Give a temporary path beside ``target``; on success sync it and rename it to ``target``.

    If the block raises, the temporary file is removed and ``target`` stays as it was; what a
    killed process has left is removed by the next that writes ``target``. A link of that name is
    replaced, never followed.

    Args:
        target: the file.
        folder: where the temporary file lies, on the same file system; None: beside ``target``.

    Raises:
        OutputError: the folder is missing or not writable, or the disk is full.
    """
    target = Path(target)
    with writing(target):
        temporary, claimed = create_beside((folder or target.parent) / target.name)
    with claimed, failing_as(target, temporary):
        try:
            yield temporary
            with open(
                os.open(temporary, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb"
            ) as written:
                # safetensors puts another file in its place, a private one.
                os.fchmod(written.fileno(), os.fstat(claimed.fileno()).st_mode)
                os.fsync(written.fileno())
            os.replace(temporary, target)
        except BaseException:  # else what has this name by now is another process's
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn every OSError of the block into an OutputError that names ``target``."""
    try:
        yield
    except OutputError:
        raise
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
    with writing(target):
        temporary, file = create_beside(target)
    with failing_as(target, temporary, target), file:
        try:
            file.write(text.encode())
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
            temporary.unlink(missing_ok=True)  # while it is locked, and so ours


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
