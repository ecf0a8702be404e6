"""Output files that appear whole or not at all."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genselfdiff.errors import OutputError, one_line

_WRITE_ERRORS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
)
"""What writing fails with; the error names no file then."""


def refuse_existing(target: Path, overwrite: bool) -> None:
    """Raise OutputError where ``target`` exists and is not to be overwritten."""
    if target.exists() and not overwrite:
        raise OutputError(f"{target}: exists already: name another file, or use --overwrite")


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
        yield temporary
        os.chmod(temporary, permissions)  # safetensors puts a private file in its place
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
    except OSError as error:
        unnamed = error.filename is None and error.errno in _WRITE_ERRORS
        if not unnamed and error.filename != str(temporary):
            raise
        raise OutputError(f"{target}: cannot be written: {one_line(error)}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(target: str | Path, text: str) -> None:
    """Write ``text`` to ``target`` as UTF-8, whole or not at all."""
    with atomic_file(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
