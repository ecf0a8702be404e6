"""Options and messages that all commands share."""

import logging
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import click

from genselfdiff.errors import GsdError, one_line

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
        help="Results, warnings and errors only; no progress bar.",
    )
    return verbose(quiet(command))


def min_area(command: Command) -> Command:
    """Add --min-area, of objects as polygons."""
    option = click.option(
        "--min-area",
        type=click.FloatRange(0),
        default=0.0,
        show_default=True,
        help="Of the polygons, in um2 (pixels where the resolution is unknown): smaller holes are"
        " filled, then smaller objects left out.",
    )
    return option(command)


def progress() -> bool | None:
    """What library functions take: False with -q, else None: a bar on terminals only."""
    return False if _logger.level == logging.WARNING else None


def report(error: GsdError) -> None:
    """Print an error as one line, with -v after its traceback."""
    if _logger.level == logging.DEBUG:
        traceback.print_exception(error)
    click.echo(f"Error: {one_line(error)}", err=True)
