"""Where the settings of a training run come from: defaults, preset, TOML file, command line."""

from collections import ChainMap
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from genselfdiff.data.naming import names_in
from genselfdiff.errors import InputError
from genselfdiff.training.settings.config_file import STAGES, read_settings
from genselfdiff.training.settings.presets import PRESETS
from gsd.options import FILE, Command


class Names(click.ParamType):  # type: ignore[type-arg]
    """Names, comma-separated, in quotes where they hold commas; a list in a TOML file."""

    name = "names"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, ...]:
        """A tuple of the names."""
        if isinstance(value, str):
            return names_in(value)
        return tuple(str(part).strip() for part in value)


class NamesOrPattern(click.ParamType):  # type: ignore[type-arg]
    """What `split_pairs` takes: text as it is; a list of whole names in a TOML file."""

    name = "text"

    def convert(self, value: Any, param: Any, ctx: Any) -> str | tuple[str, ...]:
        """The text, or a tuple of names."""
        return value if isinstance(value, str) else tuple(map(str, value))


class Fold(click.ParamType):  # type: ignore[type-arg]
    """K/N; a list of both in a TOML file."""

    name = "K/N"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        """Both numbers."""
        parts = value.split("/") if isinstance(value, str) else value
        try:
            number, count = (int(part) for part in parts)
        except (TypeError, ValueError):
            self.fail(f"{value!r} is not K/N, such as 1/5", param, ctx)
        return number, count


_LISTS = (Names, NamesOrPattern, Fold)


def settings_sources(command: Command) -> Command:
    """Add --config and --preset, which stand in for options that are not given."""
    config = click.option(
        "--config",
        type=FILE,
        is_eager=True,
        expose_value=False,
        callback=_take_file,
        help="TOML file of settings, named as the options here; a table [pretrain] or [finetune] "
        "holds for that stage. The config.toml of a run repeats it. Options win over it.",
    )
    preset = click.option(
        "--preset",
        type=click.Choice(list(PRESETS)),
        is_eager=True,
        expose_value=False,
        callback=_take_preset,
        help="paper: the settings of the published run, without all that was added since. "
        "laptop: an hour or less for each stage on two cores. File and options win over it.",
    )
    return config(preset(command))


_REPLACES = {
    "architecture": ("width",),
    "encoder": ("init", "architecture", "width", "start_share"),
    "init": ("encoder", "start_share"),
    "val": ("fold",),
    "fold": ("val",),
    "folder": ("images", "masks", "classes", "ignore_label"),
}
"""What is on the command line also stands for these settings of a file: they told the same."""


def without_contradicted(options: dict[str, Any]) -> dict[str, Any]:
    """``options`` of the current command without those of a file that the command line replaces."""
    ctx = click.get_current_context()
    typed = {
        name for name in options if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    dropped = {other for name in typed for other in _REPLACES.get(name, ())} - typed
    return {name: None if name in dropped else value for name, value in options.items()}


def _sources(ctx: click.Context) -> ChainMap[str, Any]:
    """Settings of the file, then those of the preset."""
    if not isinstance(ctx.default_map, ChainMap):
        ctx.default_map = ChainMap({}, {})
    return ctx.default_map


def _take_preset(ctx: click.Context, parameter: click.Parameter, name: str | None) -> None:
    if name is not None:
        _sources(ctx).maps[1].update(PRESETS[name][str(ctx.info_name)])


def _take_file(ctx: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    settings = read_settings(path, str(ctx.info_name))
    parameters = {
        p.name: p for p in ctx.command.params if p.name not in ("config", "out", "resume")
    }
    for name, value in settings.items():
        if name not in parameters:
            near = get_close_matches(name, [*map(str, parameters), *STAGES], 1)
            meant = f"; is {near[0]} meant?" if near else ""
            raise InputError(f"{path}: gsd train {ctx.info_name} has no setting {name!r}{meant}")
        _sources(ctx).maps[0][name] = _checked(ctx, path, parameters[name], value)


def _checked(ctx: click.Context, path: Path, parameter: click.Parameter, value: Any) -> Any:
    """``value`` as click takes it from a command line.

    Raises:
        InputError: it is no value for this parameter.
    """
    takes_lists = parameter.nargs == -1 or isinstance(parameter.type, _LISTS)
    parts = value if takes_lists and isinstance(value, list) else [value]
    if any(isinstance(part, list | dict) for part in parts):
        several = " or a list of them" if takes_lists else ""
        raise InputError(f"{path}: {parameter.name}: give a single value{several}")
    try:
        texts = [str(part) for part in parts]
    except ValueError as error:  # a whole number of thousands of digits, given in base 16
        raise InputError(f"{path}: {parameter.name}: the number is too large") from error
    value = texts if parameter.nargs == -1 or isinstance(value, list) else texts[0]
    try:
        parameter.type_cast_value(ctx, value)
    except click.BadParameter as error:
        raise InputError(f"{path}: {parameter.name}: {error.message}") from error
    return value
