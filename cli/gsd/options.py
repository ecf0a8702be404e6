"""Options that all commands share."""

import errno
import logging
import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
from click.shell_completion import CompletionItem

from genselfdiff.errors import InputError
from genselfdiff.models.shipped import catalogue
from genselfdiff.settings import About, about
from genselfdiff.storage.places import Url, place_of
from gsd.output import RANK

Command = TypeVar("Command", bound=Callable[..., Any])

_logger = logging.getLogger("genselfdiff")


class _FilePath(click.Path):
    """The name of a file or folder, one that there can be."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Fail where it is empty, as a shell leaves a variable that is not set, or too long."""
        if not str(value):
            self.fail("is empty: name a file or folder", param, ctx)
        if isinstance(place_of(str(value)), Url):
            self.fail(
                f"{place_of(str(value))}: is a URL, and this is read and written on this machine"
                " only: copy the file",
                param,
                ctx,
            )
        try:
            os.lstat(value)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                self.fail(f"{value}: {error.strerror}", param, ctx)
        return super().convert(value, param, ctx)


class _PlacePath(_FilePath):
    """The same, or a URL."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A URL is checked by whoever opens it."""
        place = place_of(str(value))
        return place if isinstance(place, Url) else super().convert(value, param, ctx)


class _Shipped(click.ParamType):  # type: ignore[type-arg]
    """The name of a model that comes with gsd."""

    name = "name"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The names that begin so."""
        return [CompletionItem(name) for name in catalogue.names() if name.startswith(incomplete)]


class _FileOrShipped(_FilePath):
    """The same, or a file or folder."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Names that begin so, and files."""
        names = SHIPPED.shell_complete(ctx, param, incomplete)
        return names + super().shell_complete(ctx, param, incomplete)


class _PlaceOrShipped(_FileOrShipped, _PlacePath):
    """The same, or a URL."""


FILE = _FilePath(path_type=Path)
PLACE = _PlacePath(path_type=Path)
"""A file or folder, or the URL of one."""
PLACE_AS_TYPED = _PlacePath()
"""A path as text: a slash at its end says that it is a folder; or a URL."""
SHIPPED = _Shipped()
FILE_OR_SHIPPED = _FileOrShipped()
"""As text: ``nuclei`` is the name of a model, ``./nuclei`` that of a file."""
PLACE_OR_SHIPPED = _PlaceOrShipped()


def _set_level(level: int) -> Callable[[click.Context, click.Parameter, bool], None]:
    def callback(ctx: click.Context, parameter: click.Parameter, is_set: bool) -> None:
        if is_set and RANK == 0:
            _logger.setLevel(level)

    return callback


overwriting = click.option("--overwrite", is_flag=True, help="Replace files that exist.")


def _check_dask(ctx: click.Context, parameter: click.Parameter, place: str | None) -> str | None:
    from genselfdiff.fleet.clusters import check_place

    if place is not None:
        try:
            check_place(place)
        except InputError as error:
            raise click.BadParameter(str(error)) from error
    return place


def dask_option(
    purpose: str = "Share the work out to the workers of Dask",
) -> Callable[[Command], Command]:
    """The option that names a cluster, and what for."""
    return click.option(
        "--dask",
        callback=_check_dask,
        metavar="CLUSTER",
        help=f"{purpose}: local, local:N with N workers, the address of a scheduler, or a .toml"
        " that describes a cluster.",
    )


one_device = click.option("--device", help="cpu, cuda, cuda:N or mps; default: the best there is.")


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


def setting_option(
    kind: type, name: str, *, ranges: bool = False, **details: Any
) -> Callable[[Command], Command]:
    """The option that a field of a dataclass of settings declares.

    Args:
        kind: the dataclass.
        name: of the field.
        ranges: check its bounds here, and show them with the help.
        **details: what else, or otherwise, ``click.option`` takes.
    """
    part = next(part for part in fields(kind) if part.name == name)
    option, declared = "--" + name.replace("_", "-"), about(part)
    details = {"help": declared.help, "default": part.default} | details
    if not {"type", "callback", "is_flag"} & details.keys():
        if bool in _members(part.type):
            option += f"/--no-{name.replace('_', '-')}"
        else:
            details["type"] = _type_of(_members(part.type)[0], declared, ranges=ranges)
            details.setdefault("show_default", True)
    return click.option(option, name, **details)


def _members(declared: Any) -> tuple[Any, ...]:
    return get_args(declared) or (declared,)


def _type_of(kind: Any, declared: About, *, ranges: bool) -> Any:
    if declared.choices:
        return click.Choice(list(declared.choices))
    low: Any = declared.least if declared.above is None else declared.above
    high: Any = declared.most
    if not ranges or (low is None and high is None):
        return kind
    range_of = click.IntRange if kind is int else click.FloatRange
    return range_of(low, high, min_open=declared.above is not None)


def progress() -> bool | None:
    """What library functions take: False with -q, else None: a bar on terminals only."""
    return False if _logger.level >= logging.WARNING else None
