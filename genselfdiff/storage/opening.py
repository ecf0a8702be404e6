"""Opening a file wherever it is."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TypeVar

from genselfdiff.errors import InputError
from genselfdiff.files import atomic_file, writing
from genselfdiff.storage.places import Place, Url
from genselfdiff.storage.read_ahead import IN_FLIGHT, cut
from genselfdiff.storage.remote_file import RemoteFile
from genselfdiff.storage.stored_file import LocalFile, StoredFile

Value = TypeVar("Value")

MOST_COPIED = 2**28
"""Bytes of a file that is copied before it is read."""


def open_stored(place: Place) -> StoredFile:
    """Open a file of which parts are read.

    Raises:
        InputError: it is not there or cannot be read, or what reads URLs is not installed.
    """
    if isinstance(place, Url):
        return RemoteFile(place)
    return LocalFile(place)


def for_each(places: Sequence[Place], look: Callable[[Place], Value]) -> list[Value]:
    """What ``look`` gives of each place: of several at a time where one of them is by URL."""
    if not any(isinstance(place, Url) for place in places):
        return list(map(look, places))
    with ThreadPoolExecutor(IN_FLIGHT, "gsd-look") as pool:
        return list(pool.map(look, places))


@contextmanager
def local_copy(file: StoredFile) -> Iterator[Path]:
    """Give the path of a file, or of a copy that lasts as long as the block.

    Raises:
        InputError: it cannot be read, or is too large to be copied unasked.
    """
    if isinstance(file.place, Path):
        yield file.place
        return
    if file.size > MOST_COPIED:
        raise InputError(
            f"{file.place}: has {file.size:,} bytes, and is of a kind that is not read in parts:"
            " copy the file and name the copy"
        )
    with NamedTemporaryFile(prefix="gsd-", suffix=file.place.suffix) as copy:
        parts = cut(0, file.size)
        file.want(parts)
        for part in parts:
            copy.write(file.read_at(*part))
        copy.flush()
        yield Path(copy.name)


def cached_copy(url: Url) -> Path:
    """Copy a file to the user's folder for caches, unless the same content is there already.

    Raises:
        InputError: it cannot be read.
        OutputError: there is no room for it.
    """
    if url.name in ("", ".", ".."):
        raise InputError(f"{url}: names no file")
    with RemoteFile(url) as file:
        key = hashlib.sha256(f"{url.address} {file.stamp} {file.size}".encode()).hexdigest()[:16]
        path = caches() / "files" / key / url.name
        if not (file.stamp and path.exists() and path.stat().st_size == file.size):
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            download(file, path)
    return path


def download(file: StoredFile, path: Path) -> None:
    """Copy a file to ``path``, which appears whole or not at all."""
    with atomic_file(path) as temporary, temporary.open("wb") as stream:
        parts = cut(0, file.size)
        file.expect(parts)
        for part in parts:
            stream.write(file.read_at(*part))


def caches() -> Path:
    """The folder of this user's where gsd keeps what could be fetched or made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "gsd")
