"""Opening a file wherever it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

from genselfdiff.errors import InputError
from genselfdiff.storage.places import Place, Url
from genselfdiff.storage.read_ahead import cut
from genselfdiff.storage.remote_file import RemoteFile
from genselfdiff.storage.stored_file import LocalFile, StoredFile

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
