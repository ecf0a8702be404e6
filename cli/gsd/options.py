"""Options and messages that all commands share."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import click

from genselfdiff.errors import GsdError

Command = TypeVar("Command", bound=Callable[..., Any])

_logger = logging.getLogger("genselfdiff")


def _set_level(level: int) -> Callable[[click.Context, click.Parameter, bool], None]:
    def callback(ctx: click.Context, parameter: click.Parameter, given: bool) -> None:
        if given:
            _logger.setLevel(level)

    return callback


def verbosity(command: Command) -> Command:
    """Add -v and -q."""
    verbose = click.option(
        "-v",
        "--verbose",
        is_flag=True,
        expose_value=False,
        callback=_set_level(logging.DEBUG),
        help="Say more; tracebacks with errors.",
    )
    quiet = click.option(
        "-q",
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=_set_level(logging.WARNING),
        help="Warnings and errors only, no progress bar.",
    )
    return verbose(quiet(command))


def is_verbose() -> bool:
    """Whether -v was given."""
    return _logger.level == logging.DEBUG


def progress() -> bool | None:
    """What library functions take: False with -q, else None: a bar on terminals only."""
    return False if _logger.level == logging.WARNING else None


def one_line(error: GsdError) -> str:
    """The message of ``error`` alone.

    An error in a data-loading process arrives wrapped in that process' traceback, whose last line
    is "module.Class: message".
    """
    lines = str(error).strip().splitlines()
    return lines[0] if len(lines) == 1 else lines[-1].partition(": ")[2]
