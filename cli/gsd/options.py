"""Options that all commands share."""

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from genselfdiff.inference import shipped
from gsd.output import RANK

Command = TypeVar("Command", bound=Callable[..., Any])

_logger = logging.getLogger("genselfdiff")


class _FilePath(click.Path):
    """The name of a file or folder, one that there can be."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Fail where it is empty, as a shell leaves a variable that is not set, or too long."""
        if not str(value):
            self.fail("is empty: name a file or folder", param, ctx)
        try:
            os.lstat(value)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                self.fail(f"{value}: {error.strerror}", param, ctx)
        return super().convert(value, param, ctx)


class _Shipped(click.ParamType):  # type: ignore[type-arg]
    """The name of a model that comes with gsd."""

    name = "name"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The names that begin so."""
        return [CompletionItem(name) for name in shipped.names() if name.startswith(incomplete)]


class _FileOrShipped(_FilePath):
    """The same, or a file or folder."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Names that begin so, and files."""
        names = SHIPPED.shell_complete(ctx, param, incomplete)
        return names + super().shell_complete(ctx, param, incomplete)


FILE = _FilePath(path_type=Path)
FILE_AS_TYPED = _FilePath()
"""As text: a slash at its end says that it is a folder."""
SHIPPED = _Shipped()
FILE_OR_SHIPPED = _FileOrShipped()
"""As text: ``nuclei`` is the name of a model, ``./nuclei`` that of a file."""


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
    """Add --instances, --no-instances and --seed-distance."""
    take_apart = click.option(
        "--instances/--no-instances",
        default=None,
        help="Take objects apart that only touch, such as nuclei; in QuPath they are detections."
        " Default: where the model has learnt to tell them apart.",
    )
    seed_distance = click.option(
        "--seed-distance",
        type=click.FloatRange(0, min_open=True),
        help="Take them apart where they are thin, whatever the model has learnt: least distance of"
        " the middles of two that touch, in um (pixels where the resolution is unknown); default"
        " where it is done so: 1.5 um.",
    )
    return take_apart(seed_distance(command))


def progress() -> bool | None:
    """What library functions take: False with -q, else None: a bar on terminals only."""
    return False if _logger.level >= logging.WARNING else None
