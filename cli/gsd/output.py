"""What commands print: results on stdout, everything else on stderr."""

import errno
import logging
import os
import sys
import traceback
from contextlib import suppress

import click

from genselfdiff.errors import GsdError, OutputError, one_line
from genselfdiff.storage.places import without_secrets
from genselfdiff.text import shown

_told = os.environ.get("RANK", "")

RANK = int(_told) if _told.isdecimal() else 0
"""Number of this process among those that torchrun has started; the first speaks for all."""


def open_streams() -> None:
    """Make stdin, stdout and stderr something that can be read and written, in any environment.

    Where one is closed, the next file that is opened would get its number, and be written to by
    whatever prints. Where the terminal's encoding lacks a character, an escape stands for it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def log_to_stderr() -> None:
    """Let log messages go to stderr, as lines that steer no terminal."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Shown("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.raiseExceptions = False  # a stderr that cannot be written ends no run
    logging.getLogger("genselfdiff").setLevel(logging.ERROR if RANK else logging.INFO)
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what matters of it we say ourselves


class _Shown(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return shown(without_secrets(super().format(record)), keep="\n")


def say(text: str) -> None:
    """Print a result on stdout.

    Raises:
        OutputError: stdout cannot be written, because the disk that it goes to is full for example.
    """
    try:
        click.echo(shown(text, keep="\n"))
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise  # whoever reads has enough: click ends quietly
        with suppress(OSError, ValueError):
            sys.stdout.close()  # or Python tries once more when it ends, and complains
        raise OutputError(f"standard output: cannot be written: {one_line(error)}") from error


def complain(text: str) -> None:
    """Print a line on stderr, if it can be written."""
    with suppress(OSError, ValueError):
        click.echo(shown(text), err=True)


def report(error: GsdError) -> None:
    """Print an error as one line, with -v after its traceback."""
    if logging.getLogger("genselfdiff").level == logging.DEBUG:
        with suppress(OSError, ValueError):
            click.echo(shown("".join(traceback.format_exception(error)), keep="\n"), err=True)
    of_process = f" (process {RANK})" if RANK else ""
    complain(f"Error{of_process}: {one_line(error)}")
