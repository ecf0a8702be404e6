"""Settings that a user keeps in a TOML file."""

from pathlib import Path
from typing import Any

from genselfdiff.errors import InputError
from genselfdiff.input_files import read_toml
from genselfdiff.training.settings.stage_configs import FinetuneConfig, PretrainConfig

STAGES = (PretrainConfig.stage, FinetuneConfig.stage)


def read_settings(path: Path, stage: str) -> dict[str, Any]:
    """Settings for ``stage`` by name: of the file itself, then of its table named for the stage.

    Names are those of the command line's options, with - or _. The ``config.toml`` of a run can be
    read too.

    Raises:
        InputError: the file cannot be read, is of a run of the other stage, or says a thing twice.
    """
    content = read_toml(path, errors="surrogateescape")
    if content.pop("stage", stage) != stage:
        raise InputError(f"{path}: has the settings of another stage, not of gsd train {stage}")
    for name in ("encoder_shape", "origin", "attributions"):  # of what a run started from
        content.pop(name, None)
    tables = {name: content.pop(name, {}) for name in STAGES}
    if not isinstance(tables[stage], dict):
        raise InputError(f"{path}: {stage} must be a table, [{stage}]")
    return _by_name(path, content) | _by_name(path, tables[stage])


def _by_name(path: Path, table: dict[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name in settings:
            raise InputError(f"{path}: sets {name} twice, with - and with _: leave one")
        settings[name] = value
    return settings
