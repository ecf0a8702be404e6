"""Options that all commands share."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import click

from gsd.output import RANK

Command = TypeVar("Command", bound=Callable[..., Any])

_logger = logging.getLogger("genselfdiff")


def _set_level(level: int) -> Callable[[click.Context, click.Parameter, bool], None]:
    def callback(ctx: click.Context, parameter: click.Parameter, given: bool) -> None:
        if given and RANK == 0:
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
    """Add --min-area, of objects."""
    option = click.option(
        "--min-area",
        type=click.FloatRange(0),
        default=0.0,
        show_default=True,
        help="Of objects, in um2 (pixels where the resolution is unknown): smaller holes are"
        " filled, then smaller objects left out.",
    )
    return option(command)


def instances(command: Command) -> Command:
    """Add --instances and --seed-distance."""
    take_apart = click.option(
        "--instances",
        is_flag=True,
        help="Take objects apart that only touch, such as nuclei; in QuPath they are detections.",
    )
    seed_distance = click.option(
        "--seed-distance",
        type=click.FloatRange(0, min_open=True),
        help="With --instances: least distance of the middles of two objects that touch, in um"
        " (pixels where the resolution is unknown); default: 1.5 um.",
    )
    return take_apart(seed_distance(command))


def progress() -> bool | None:
    """What library functions take: False with -q, else None: a bar on terminals only."""
    return False if _logger.level >= logging.WARNING else None
