"""Images kept in a temporary file instead of memory."""

import os
import tempfile
from collections.abc import Iterable
from typing import IO

import numpy as np
from numpy.typing import NDArray

from genselfdiff.errors import OutputError, one_line


def spooled(arrays: Iterable[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Copies of ``arrays``, one after the other, in a file without a name.

    The file lies in the folder for temporary files, which TMPDIR names, and is gone when nobody
    maps it any more. Processes that are forked afterwards share its pages, and the kernel may drop
    them from memory, as it has them on disk; where the folder is itself in memory (tmpfs), it
    cannot.

    Args:
        arrays: uint8, of any shapes, each of at least one element.

    Returns:
        What was given, mapped from the file; not to be written to.

    Raises:
        OutputError: the file cannot be made, or the disk is full.
    """
    shapes: list[tuple[int, ...]] = []
    with _unnamed_file() as file:
        for array in arrays:
            _write(file, array)
            shapes.append(array.shape)
        if not shapes:
            return []
        stored = _mapped(file)
    ends = np.cumsum([np.prod(shape) for shape in shapes])
    parts = np.split(stored, ends[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def spooled_image(bands: Iterable[NDArray[np.uint8]], width: int) -> NDArray[np.uint8]:
    """An image, uint8 (H, width, 3), kept as by `spooled`, of which ``bands`` are the rows.

    Raises:
        OutputError: as `spooled`.
    """
    with _unnamed_file() as file:
        for band in bands:
            _write(file, band)
        return _mapped(file).reshape(-1, width, 3)


def _mapped(file: IO[bytes]) -> NDArray[np.uint8]:
    return np.asarray(np.memmap(file, np.uint8, mode="r"))


def _unnamed_file() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile(buffering=0)
    except OSError as error:
        raise _no_room(error) from error


def _write(file: IO[bytes], array: NDArray[np.uint8]) -> None:
    left = np.ascontiguousarray(array).data.cast("B")
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        raise _no_room(error) from error


def _no_room(error: OSError) -> OutputError:
    # As tempfile chooses it; its own function fails where no folder can be written to.
    folder = tempfile.tempdir or os.environ.get("TMPDIR", "the folder for temporary files")
    return OutputError(
        f"{folder}: cannot take the decoded images ({one_line(error)}): make room there, or name a"
        " folder that has more of it in the environment variable TMPDIR"
    )
