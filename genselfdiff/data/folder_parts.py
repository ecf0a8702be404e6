"""Parts of a folder, files and folders, that one process replaces together."""

import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from genselfdiff.errors import OutputError
from genselfdiff.files import writing
from genselfdiff.working_files import is_at, lock

_BEGUN = ".import."
"""Beginning of the name, in the folder, of the one in which the new parts grow."""

_BEGUN_NAME = re.compile(re.escape(_BEGUN) + "[0-9a-f]{8}")

_OLD = "old"
"""In that, the parts that were replaced, while they are."""


@contextmanager
def alone_in(folder: Path) -> Iterator[bool]:
    """Make a folder, and keep others that ask for the same from it during the block.

    Where the folder was made and nothing is in it at the end, it is removed. Gives whether it is
    certain that nobody else is there: some file systems, of a network, have no locks.

    Raises:
        OutputError: another process is there, or the folder cannot be made.
    """
    with writing(folder):
        opened, is_new, is_locked = _open_locked(Path(os.path.realpath(folder)))
    try:
        if is_locked is False:
            raise OutputError(
                f"{folder}: another process is writing into it: wait for that, or name another"
                " folder"
            )
        try:
            yield bool(is_locked)
        finally:
            if is_new:
                with suppress(OSError):  # it is not empty
                    folder.rmdir()
    finally:
        os.close(opened)


def _open_locked(folder: Path) -> tuple[int, bool, bool | None]:
    """The open folder, whether it was made, and what `lock` says."""
    while True:
        is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        is_locked = lock(opened)
        if is_at(opened, folder):
            return opened, is_new, is_locked
        os.close(opened)  # removed by the process that had made it


@contextmanager
def replacing(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    """Give a folder for new parts; after the block they take the place of those in ``folder``.

    If the block raises, those stay; if the process is killed, they come back with the next call.
    The last part is the first to go and the last to come: where it is, all are of one call.

    Args:
        folder: made if it is not there.
        parts: names; what else is in ``folder`` stays. The first and the last are always made, the
            last as the last of all.

    Raises:
        OutputError: another process replaces parts of the folder, or it cannot be written.
    """
    with alone_in(folder) as is_alone:
        begun = folder / f"{_BEGUN}{secrets.token_hex(4)}"
        with writing(folder):
            if is_alone:
                _take_back_unfinished(folder, parts)
            (begun / _OLD).mkdir(parents=True)
        try:
            yield begun
            with writing(folder):
                _swap(begun, folder, parts)
        finally:
            shutil.rmtree(begun, ignore_errors=True)


def _take_back_unfinished(folder: Path, parts: Sequence[str]) -> None:
    """Undo and remove what killed processes have left."""
    for begun in folder.glob(f"{_BEGUN}*"):
        is_ours = _BEGUN_NAME.fullmatch(begun.name) and (begun / _OLD).is_dir()
        if is_ours and not begun.is_symlink():
            if os.path.lexists(begun / parts[-1]):
                _put_back(begun, folder, parts)
            shutil.rmtree(begun)


def _swap(begun: Path, folder: Path, parts: Sequence[str]) -> None:
    """Move the parts of ``folder`` aside and those of ``begun`` there; all go back on an error."""
    try:
        for part in reversed(parts):
            if os.path.lexists(folder / part):
                (folder / part).rename(begun / _OLD / part)
        for part in parts:
            if os.path.lexists(begun / part):
                (begun / part).rename(folder / part)
    except BaseException:
        _put_back(begun, folder, parts)
        raise


def _put_back(begun: Path, folder: Path, parts: Sequence[str]) -> None:
    """Undo a swap that came to anywhere before its end."""
    is_placing = not os.path.lexists(begun / parts[0])
    for part in parts:
        if is_placing and os.path.lexists(folder / part):
            (folder / part).rename(begun / part)
        if os.path.lexists(begun / _OLD / part):
            (begun / _OLD / part).rename(folder / part)
