"""Which library reads a URL, and what its failures mean: fsspec and what it brings along."""

import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from genselfdiff.errors import InputError, one_line
from genselfdiff.storage.places import Url, without_secrets

Value = TypeVar("Value")

FIRST_WAIT = 0.25
"""Seconds before the second try; each further one waits twice as long, with chance between."""
TRIES = 6
LONGEST_WAIT = 30.0
"""Seconds, where a server says itself when to come again."""

_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}


class Transient(Exception):
    """What a server says, or does, that may be over soon.

    Attributes:
        wait: seconds after which the server wants to be asked again; None: it does not say.
    """

    def __init__(self, cause: str, wait: float | None = None) -> None:
        super().__init__(cause)
        self.wait = wait


class NotThere(InputError):
    """There is nothing at a URL."""

    def __init__(self, url: Url) -> None:
        super().__init__(f"{url}: no such file or folder")


class Changed(InputError):
    """An object is another one than when it was opened."""

    def __init__(self, url: Url) -> None:
        super().__init__(
            f"{url}: was changed while it was read: wait until it is written whole, and start anew"
        )


def filesystem_of(url: Url) -> tuple[Any, str]:
    """The fsspec file system of a URL, and what that calls the file.

    The libraries look for credentials and settings themselves, in the environment and their files.

    Raises:
        InputError: fsspec, or what it needs for such a URL, is not installed, or knows none such.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise InputError(
            f"{url}: files by URL are read through fsspec, which is not installed: pip install"
            " 'genselfdiff[storage]'"
        ) from None
    if "::" in url.address:
        raise InputError(f"{url}: one URL within another is not read: copy the file")
    try:
        filesystem, path = url_to_fs(url.address)
    except ImportError:
        package = _PACKAGES.get(url.scheme)
        command = f"pip install {package}" if package else "pip install 'genselfdiff[storage]'"
        raise InputError(
            f"{url}: what reads {url.scheme}:// is not installed: {command}, or copy the file"
        ) from None
    except Exception as error:
        raise failure(url, error) from None
    return filesystem, path


def patiently(url: Url, request: Callable[[], Value], doing: str = "read") -> Value:
    """Do ``request``, several times where what fails may be over soon.

    Raises:
        InputError: it fails for good, or again and again. No cause is chained to it: a library's
            message may show signatures and passwords.
    """
    attempt = 1
    while True:
        try:
            return request()
        except Exception as error:
            wait = wait_after(url, error, attempt, doing)
        time.sleep(wait)
        attempt += 1


def wait_after(url: Url, error: Exception, attempt: int, doing: str = "read") -> float:
    """Seconds until the next try, where an attempt, counted from 1, has failed.

    Raises:
        InputError: there is no next one.
    """
    if isinstance(error, InputError):
        raise error
    if attempt == TRIES or not _is_transient(error):
        raise failure(url, error, doing) from None
    told = error.wait if isinstance(error, Transient) else None
    wait = FIRST_WAIT * 2 ** (attempt - 1) * random.uniform(0.5, 1.0) if told is None else told
    return min(wait, LONGEST_WAIT)


def failure(url: Url, error: Exception, doing: str = "read") -> InputError:
    """The error that tells why ``url`` cannot be read (or "written"), without secrets."""
    if isinstance(error, FileNotFoundError):
        return NotThere(url)
    if isinstance(error, PermissionError) or "Credential" in type(error).__name__:
        return InputError(
            f"{url}: may not be {doing}: give the credentials as the library of {url.scheme}://"
            " wants them (environment variables, or its own files)"
        )
    told = without_secrets(one_line(error).replace(url.address, str(url)))
    kind = "" if isinstance(error, Transient | OSError) else f"{type(error).__name__}: "
    told = "it takes too long" if isinstance(error, TimeoutError) and not str(error) else told
    tries = f", after {TRIES} tries" if _is_transient(error) else ""
    return InputError(f"{url}: cannot be {doing}: {kind}{told}{tries}")


def _is_transient(error: Exception) -> bool:
    if isinstance(error, Transient):
        return True
    is_wrong = isinstance(error, (*_PERMANENT, ValueError, TypeError, ImportError))
    return not is_wrong and "Credential" not in type(error).__name__
