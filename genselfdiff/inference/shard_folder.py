"""What the processes that share a slide leave in the folder beside its mask-to-be.

``job.json``, which the first of them writes and all obey, and from each a finished part of the
mask.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from genselfdiff.errors import InputError, one_line
from genselfdiff.inference.mask_state import finished
from genselfdiff.inference.options import Options
from genselfdiff.inference.output_files import OutputFiles

FOLDER_SUFFIX = ".shards"
JOB_NAME = "job.json"
_KEYS = {"slide", "listed", "classes", "shards", "parts", "options", "told"}
_PATIENCE = 20
"""Tenths of a second for another shard to write the job."""
_BESIDE = (
    *("mpp", "on_error", "overlay", "overlay_width", "geojson", "table", "labels"),
    *("instances", "seed_distance", "min_area", "report", "probabilities"),
)
"""The options that decide what is written beside a mask."""


def folder_of(mask: Path) -> Path:
    """Where the parts of a mask lie."""
    return mask.with_name(mask.name + FOLDER_SUFFIX)


def part_files(folder: Path, index: int, options: Options) -> OutputFiles:
    """The files that one shard leaves in the folder."""
    only = Options(probabilities=options.probabilities)
    return OutputFiles.of(folder / f"part-{index}.tif", only)


def missing_parts(folder: Path, shared: dict[str, Any], options: Options) -> list[str]:
    """The shards whose parts are not there, or of another job that was in this folder."""

    def is_there(index: str) -> bool:
        done = finished(part_files(folder, int(index), options))
        return done is not None and done["job"] == job | {"rows": shared["parts"][index]}

    job = shared["told"]["job"]
    return [index for index in shared["parts"] if not is_there(index)]


def options_to_json(options: Options, mask: Path) -> dict[str, Any]:
    """What decides what lies beside ``mask``, as JSON has it; files as seen from its folder."""

    def told(value: Any) -> Any:
        if isinstance(value, str | Path):
            return os.path.relpath(value, mask.parent)
        return value

    values = {name: getattr(options, name) for name in _BESIDE}
    return values | {name: told(values[name]) for name in ("overlay", "table")}


def options_from_json(shared: dict[str, Any], mask: Path) -> Options:
    """What ``options_to_json`` has told."""
    values = shared["options"]
    files = {name: values[name] for name in ("overlay", "table") if isinstance(values[name], str)}
    return Options(**values | {name: mask.parent / file for name, file in files.items()})


def read_job(folder: Path) -> dict[str, Any]:
    """What the first shard has written.

    Raises:
        InputError: it cannot be read, or is of another version.
    """
    path = folder / JOB_NAME
    for waited in range(_PATIENCE):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            break
        except (OSError, ValueError) as error:
            # On file systems without hard links another shard may be writing it just now.
            if isinstance(error, ValueError) and waited + 1 < _PATIENCE:
                time.sleep(0.1)
                continue
            raise InputError(
                f"{path}: cannot be read: {one_line(error)}; delete {folder} to start anew"
            ) from error
    if not isinstance(content, dict) or content.keys() != _KEYS:
        raise InputError(
            f"{path}: is no job of this version's gsd segment --shard; delete {folder} to start"
            " anew"
        )
    if content["options"].keys() != set(_BESIDE):
        raise InputError(
            f"{path}: is of another version of genselfdiff: use that, or delete {folder} to start"
            " anew"
        )
    return content
