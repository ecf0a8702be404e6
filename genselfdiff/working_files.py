"""Files under hidden names of our own, beside the outputs that they become.

Anything can lie under such a name in a folder that others write to: a link to a file of the user's,
a pipe, a file of somebody else. They are opened as files of our own, or not at all.
"""

import errno
import fcntl
import itertools
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from genselfdiff.errors import OutputError, one_line

_WRITE_ERRORS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
)
"""What writing fails with; the error names no file then."""

_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Without O_NONBLOCK, opening a pipe would wait for somebody at its other end."""

_TEMPORARY = re.compile(r"\..+\.gsd-\d+(\.[^.]*)?")
"""What `create_beside` names."""

_PERMISSIONS = 0o666
"""Of new files, less the umask."""


def open_own(path: Path, *, create: bool = False) -> BinaryIO:
    """Open a file of ours for reading and writing, at its beginning.

    Args:
        path: the file.
        create: make it where it is not there.

    Raises:
        OutputError: what is there is a link, has other names, or is no file of this user's.
        OSError: it cannot be opened, or is not there.
    """
    try:
        opened = os.open(path, _OPEN | (os.O_CREAT if create else 0), _PERMISSIONS)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise _foreign(path) from error
        raise
    if os.fstat(opened).st_nlink < 2 and _is_ours(opened, path.parent):
        return open(opened, "r+b")
    os.close(opened)
    raise _foreign(path)


def create_beside(target: Path) -> tuple[Path, BinaryIO]:
    """Create a file to write ``target`` in: under a hidden name with the same suffix, and locked.

    What processes that were killed have left of such files is removed.

    Raises:
        OSError: the folder is missing or not writable, or the name too long.
    """
    names = (_temporary_name(target, number) for number in itertools.count())
    for path in names:
        _remove_abandoned(path)
        with suppress(FileExistsError):  # another process's, or not ours to remove
            opened = os.open(path, _OPEN | os.O_CREAT | os.O_EXCL, _PERMISSIONS)
            if lock(opened) is not False and is_at(opened, path):
                break
            os.close(opened)  # another process took it for abandoned, before it was locked
    for further in itertools.takewhile(os.path.lexists, names):
        _remove_abandoned(further)
    return path, open(opened, "r+b")


def require_room_for_name(target: Path) -> None:
    """Raise OSError where the names that `create_beside` gives cannot be: they are longer."""
    with suppress(FileNotFoundError):
        _temporary_name(target, 0).lstat()


def remove_abandoned(folder: Path) -> None:
    """Remove what killed processes have left in ``folder`` of files by `create_beside`."""
    for path in folder.glob(".*"):
        if _TEMPORARY.fullmatch(path.name):
            _remove_abandoned(path)


def lock(opened: int) -> bool | None:
    """Lock a file against other processes.

    Returns:
        Whether it is ours now; None: this file system, of a network, has no locks.
    """
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EAGAIN, errno.EACCES) else None
    return True


@contextmanager
def alone_at(path: Path) -> Iterator[None]:
    """Wait until no other process is at the file ``path``, and keep others from it.

    Where a file system has no locks, this does nothing.
    """
    # A file of its own: NFS locks neither folders nor what is not open for writing. Where that
    # cannot be, or is another user's, the folder.
    name = path.with_name(f".{path.name}.lock")
    try:
        stream = _alone_in(name)
    except (OSError, OutputError):
        opened = os.open(path.parent, os.O_RDONLY)
        try:
            with suppress(OSError):
                fcntl.flock(opened, fcntl.LOCK_EX)
            yield
        finally:
            os.close(opened)
        return
    try:
        yield
    finally:
        with suppress(OSError):
            name.unlink()
        stream.close()


def _alone_in(name: Path) -> BinaryIO:
    """The file of a name, made if need be, and locked."""
    while True:
        stream = open_own(name, create=True)
        with suppress(OSError):
            fcntl.flock(stream.fileno(), fcntl.LOCK_EX)
        if is_at(stream.fileno(), name):
            return stream
        stream.close()  # removed by the one that was waited for


def is_at(opened: int, path: Path) -> bool:
    """Whether an open file is still there under its name, and not removed or replaced."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(opened), os.lstat(path))
    return False


@contextmanager
def failing_as(target: Path, *temporary: Path) -> Iterator[None]:
    """Turn what writing fails with into an OutputError that names ``target``."""
    try:
        yield
    except OSError as error:
        unnamed = error.filename is None and error.errno in _WRITE_ERRORS
        if isinstance(error, OutputError) or not (unnamed or error.filename in map(str, temporary)):
            raise
        raise OutputError(f"{target}: cannot be written: {one_line(error)}") from error


def _temporary_name(target: Path, number: int) -> Path:
    return target.with_name(f".{target.name}.gsd-{number}{target.suffix}")


def _remove_abandoned(path: Path) -> None:
    """Remove a file of ours that no process has locked; where locks are unknown, it stays."""
    with suppress(OSError):
        opened = os.open(path, _OPEN)
        try:
            if _is_ours(opened, path.parent) and lock(opened) and is_at(opened, path):
                path.unlink()
        finally:
            os.close(opened)


def _is_ours(opened: int, folder: Path) -> bool:
    """Whether a file is a regular one that belongs to whom new files in ``folder`` belong to.

    That is not always the user of this process: servers of network file systems map users.
    """
    status = os.fstat(opened)
    if not stat.S_ISREG(status.st_mode) or status.st_uid == os.geteuid():
        return stat.S_ISREG(status.st_mode)
    with suppress(OSError), tempfile.TemporaryFile(dir=folder) as new:
        return os.fstat(new.fileno()).st_uid == status.st_uid
    return False


def _foreign(path: Path) -> OutputError:
    return OutputError(
        f"{path}: is a link or somebody else's, where gsd would work in a file of its own: remove"
        " it, or name another output"
    )
