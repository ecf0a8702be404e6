"""Parts of a folder, files and folders, that are replaced together."""

import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from genselfdiff.files import writing

_BEGUN = ".import."
"""Beginning of the name, in the folder, of the one in which the new parts grow."""

_OLD = "old"
"""In that, the parts that were replaced, while they are."""


def was_begun(folder: Path) -> bool:
    """Whether a killed process has left what `replacing` had begun."""
    return any(folder.glob(f"{_BEGUN}*"))


@contextmanager
def replacing(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    """Give a folder for new parts; after the block they take the place of those in ``folder``.

    If the block raises, those stay. The last part is the first to go and the last to come: where
    it is, all are of one call.

    Args:
        folder: made if it is not there.
        parts: names; what else is in ``folder`` stays.

    Raises:
        OutputError: the folder cannot be written.
    """
    is_new = not folder.exists()
    begun = folder / f"{_BEGUN}{secrets.token_hex(4)}"
    try:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for stale in folder.glob(f"{_BEGUN}*"):
                shutil.rmtree(stale)
            (begun / _OLD).mkdir(parents=True)
        yield begun
        with writing(folder):
            _swap(begun, folder, parts)
    finally:
        shutil.rmtree(begun, ignore_errors=True)
        if is_new:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def _swap(begun: Path, folder: Path, parts: Sequence[str]) -> None:
    """Move the parts of ``folder`` aside and those of ``begun`` there; all go back on an error."""
    old = begun / _OLD
    try:
        for part in reversed(parts):
            if os.path.lexists(folder / part):
                (folder / part).rename(old / part)
        for part in parts:
            if (begun / part).exists():
                (begun / part).rename(folder / part)
    except OSError:
        for part in parts:
            if os.path.lexists(old / part):
                if os.path.lexists(folder / part):
                    (folder / part).rename(begun / part)
                (old / part).rename(folder / part)
        raise
