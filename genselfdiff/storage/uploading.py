"""Files that belong elsewhere, and are worked on here: fetched, and sent whole."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from genselfdiff.errors import InputError, OutputError, one_line
from genselfdiff.storage.filesystems import NotThere, Transient, filesystem_of, patiently
from genselfdiff.storage.opening import caches, download
from genselfdiff.storage.places import Url
from genselfdiff.storage.remote_file import RemoteFile

_WHOLE_AT_ONCE = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"})
"""Schemes of which an object appears when all of it is there, and not before."""


def scratch_of(url: Url, scratch: str | Path | None = None) -> Path:
    """Where the file or folder of ``url`` is worked on: a path that is the same in each run.

    Args:
        url: a file, or a folder, with or without a slash at its end.
        scratch: the folder of all such; None: below the user's folder for caches.

    Raises:
        OutputError: nothing can be written there, by its scheme or name.
    """
    if url.scheme in ("http", "https") or "?" in url.address:
        raise OutputError(f"{url}: results are not written there: name a bucket, or a folder here")
    if url.name in ("", ".", "..") or "\0" in url.name:
        raise OutputError(f"{url}: names no file or folder to write")
    scratch = caches() / "scratch" if scratch is None else scratch
    return Path(scratch, hashlib.sha256(str(url.parent).encode()).hexdigest()[:16], url.name)


def scratch_with(path: Path, folder: Url) -> Path:
    """The ``scratch`` below which `scratch_of` has ``path``, a file of ``folder`` or in it."""
    return next(
        scratch
        for scratch in path.parents
        if scratch_of(folder, scratch) == path.parent
        or scratch_of(folder / path.name, scratch) == path
    )


@contextmanager
def worked_on_here(folder: Url, files: Sequence[Path], *, fetch: bool) -> Iterator[None]:
    """Fetch what is there of ``files`` in ``folder``, and send what the block has made of them.

    They are sent in their order, each whole, and then removed here. What an earlier run has made
    and could not send is not fetched, but sent. If the block raises, what it has made stays here.

    Args:
        folder: where they belong, under their names.
        files: where they are worked on, all in one folder, which is made.
        fetch: whether to fetch them.

    Raises:
        InputError: one cannot be fetched.
        OutputError: one cannot be sent; it stays here, for the next run to send.
    """
    try:
        files[0].parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{files[0].parent}: cannot be made: {one_line(error)}") from error
    fetched: dict[Path, tuple[int, ...]] = {}
    try:
        for path in files if fetch else ():
            if not os.path.lexists(path) and _fetch(folder / path.name, path):
                fetched[path] = _stamp(path)
        yield
        for path in files:
            if os.path.lexists(path) and fetched.get(path) != _stamp(path):
                send(path, folder / path.name)
                path.unlink()
    finally:
        for path, stamp in fetched.items():
            with suppress(FileNotFoundError):
                if _stamp(path) == stamp:
                    path.unlink()


def send(path: Path, url: Url) -> None:
    """Write a file to a URL, where it appears whole or not at all.

    Raises:
        OutputError: it cannot be written there.
    """
    try:
        filesystem, target = filesystem_of(url)
        patiently(url, lambda: _put(filesystem, path, target, url.scheme), doing="written")
    except InputError as error:
        raise OutputError(f"{error}; {path} is kept: the same command sends it") from None


def is_there(url: Url) -> bool:
    """Whether there is a file at a URL.

    Raises:
        InputError: that cannot be learnt.
    """
    try:
        RemoteFile(url).close()
    except NotThere:
        return False
    return True


def _put(filesystem: Any, path: Path, target: str, scheme: str) -> None:
    size = path.stat().st_size
    if scheme in _WHOLE_AT_ONCE:
        filesystem.put_file(str(path), target)
    else:
        folder, _, name = target.rpartition("/")
        filesystem.makedirs(folder, exist_ok=True)
        growing = f"{folder}/.{name}.gsd-part"
        filesystem.put_file(str(path), growing)
        filesystem.mv(growing, target)
    filesystem.invalidate_cache()
    if filesystem.info(target)["size"] != size:
        raise Transient("it has another size there")


def _fetch(url: Url, path: Path) -> bool:
    """Copy a file to here; False: it is not there."""
    try:
        file = RemoteFile(url)
    except NotThere:
        return False
    with file:
        download(file, path)
    return True


def _stamp(path: Path) -> tuple[int, ...]:
    status = path.lstat()
    return status.st_ino, status.st_size, status.st_mtime_ns
