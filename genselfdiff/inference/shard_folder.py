"""What the processes that share a slide leave in the folder beside its mask-to-be.

``job.json``, which the first of them writes and all obey, and from each a finished part of the
mask. Whoever can write to the folder can change the job: nothing of it is believed before it is
looked at, and nothing that it names lies elsewhere than beside the mask.
"""

import itertools
import os
import re
import stat
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from genselfdiff.choices import ON_ERROR
from genselfdiff.errors import InputError, OutputError
from genselfdiff.inference.job import Job, is_job
from genselfdiff.inference.mask_state import finished
from genselfdiff.inference.options import Options
from genselfdiff.inference.output_files import OutputFiles
from genselfdiff.input_files import parse_json, read_bytes
from genselfdiff.text import file_name
from genselfdiff.working_files import remove_abandoned

FOLDER_SUFFIX = ".shards"
JOB_NAME = "job.json"

_LARGEST_JOB = 2**20
"""Bytes: 30,000 shards have fewer."""

_PATIENCE = 20
"""Tenths of a second for another shard to write the job."""

_PART = re.compile(r"part-\d+(_probabilities)?\.tif|\.part-\d+.*\.(partial|journal)")
"""What shards leave beside the job."""

_NUMBER: tuple[type, ...] = (int, float)
_NONE = type(None)
_BESIDE: dict[str, tuple[type, ...]] = {
    "mpp": (*_NUMBER, _NONE),
    "on_error": (str,),
    "overlay": (bool, str, _NONE),
    "overlay_width": (int, _NONE),
    "geojson": (bool,),
    "table": (bool, str, _NONE),
    "labels": (bool,),
    "instances": (bool, _NONE),
    "seed_distance": (*_NUMBER, _NONE),
    "min_area": _NUMBER,
    "report": (bool,),
    "probabilities": (bool,),
}
"""The options that decide what is written beside a mask; texts are names of files there."""


@dataclass(frozen=True)
class SharedJob:
    """What the processes that share a slide agree on.

    Attributes:
        slide: where the slide was when they began.
        listed: the slide's name in the summary of its folder; None: it gets no row there.
        classes: how many there are.
        shards: how many processes.
        parts: rows of the window, from and to, of each shard that has any, by its number.
        options: those that decide what is written beside the mask.
        told: what the mask shall say of itself.
    """

    slide: str
    listed: str | None
    classes: int
    shards: int
    parts: dict[int, tuple[int, int]]
    options: dict[str, Any]
    told: dict[str, Any]

    @property
    def job(self) -> Job:
        """What decides the pixels of the mask."""
        job: Job = self.told["job"]
        return job

    def options_at(self, mask: Path) -> Options:
        """What ``options_as_json`` was told, for a mask wherever it lies now."""
        files = {
            name: mask.with_name(self.options[name])
            for name in ("overlay", "table")
            if isinstance(self.options[name], str)
        }
        return Options(**self.options | files)

    def as_json(self) -> dict[str, Any]:
        """What ``read_job`` reads."""
        return asdict(self)


def folder_of(mask: Path) -> Path:
    """Where the parts of a mask lie."""
    return mask.with_name(mask.name + FOLDER_SUFFIX)


def part_files(folder: Path, index: int, options: Options) -> OutputFiles:
    """The files that one shard leaves in the folder."""
    only = Options(probabilities=options.probabilities)
    return OutputFiles.of(folder / f"part-{index}.tif", only)


def missing_parts(folder: Path, shared: SharedJob, options: Options) -> list[int]:
    """The shards whose parts are not there, or of another job that was in this folder."""

    def is_there(index: int) -> bool:
        done = finished(part_files(folder, index, options))
        return done is not None and done["job"] == shared.job | {"rows": [*shared.parts[index]]}

    return [index for index in shared.parts if not is_there(index)]


def options_as_json(options: Options, mask: Path) -> dict[str, Any]:
    """What decides what lies beside ``mask``.

    Raises:
        InputError: a file that shall lie beside it would lie in another folder.
    """
    values = {name: getattr(options, name) for name in _BESIDE}
    for name in ("overlay", "table"):
        if not isinstance(values[name], bool | None):
            file = Path(values[name])
            folders = {os.path.realpath(path.parent) for path in (file, mask)}
            if len(folders) > 1 or file.name != file_name(file.name):
                raise InputError(
                    f"{file}: of shards, it has to lie beside the mask, under a plain name: name a"
                    f" file in {mask.parent}"
                )
            values[name] = file.name
    return values


def require_own_folder(folder: Path) -> None:
    """Raise OutputError where a link leads from ``folder`` to another."""
    if folder.is_symlink():
        raise OutputError(f"{folder}: is a link, where gsd makes a folder of its own: remove it")


def read_job(folder: Path) -> SharedJob:
    """What the first shard has written.

    Raises:
        InputError: it cannot be read, is of another version, or is none.
    """
    path = folder / JOB_NAME
    for waited in range(_PATIENCE):
        try:
            content = parse_json(read_bytes(path, _LARGEST_JOB).decode(errors="replace"), path)
            break
        except InputError as error:
            # On file systems without hard links another shard may be writing it just now.
            if os.path.lexists(path) and waited + 1 < _PATIENCE:
                time.sleep(0.1)
                continue
            raise InputError(f"{error}; delete {folder} to start anew") from error
    try:
        return _checked(content)
    except ValueError as error:
        raise InputError(
            f"{path}: is no job of this version's gsd segment --shard ({error}); delete {folder} to"
            " start anew"
        ) from error


def remove_parts(folder: Path) -> list[str]:
    """Remove what shards have left in a folder, the job last, and the folder, if it is empty then.

    A call that is stopped on its way can be repeated.

    Returns:
        The names of what is there beside, and stays.

    Raises:
        OSError: something cannot be removed.
    """
    remove_abandoned(folder)
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        names = [name for name in os.listdir(opened) if _PART.fullmatch(name)]
        for name in (*names, JOB_NAME):
            with suppress(FileNotFoundError):
                if stat.S_ISREG(os.stat(name, dir_fd=opened, follow_symlinks=False).st_mode):
                    os.unlink(name, dir_fd=opened)
        others = os.listdir(opened)
    finally:
        os.close(opened)
    if not others:
        folder.rmdir()
    return others


def _checked(content: Any) -> SharedJob:
    """The job that a file tells.

    Raises:
        ValueError: it tells none.
    """
    kinds: dict[str, tuple[type, ...]] = {
        "slide": (str,),
        "listed": (str, _NONE),
        "classes": (int,),
        "shards": (int,),
        "parts": (dict,),
        "options": (dict,),
        "told": (dict,),
    }
    _require(content, kinds)
    parts = {
        int(index): (rows[0], rows[1])
        for index, rows in content["parts"].items()
        if re.fullmatch(r"[1-9]\d{0,8}", index) and _are_rows(rows)
    }
    spans = sorted(parts.values())
    if (
        not parts
        or len(parts) < len(content["parts"])
        or max(parts) > content["shards"]
        or spans[0][0] != 0
        or any(end != begin for (_, end), (begin, _) in itertools.pairwise(spans))
    ):
        raise ValueError("its parts are none of a slide")
    if not 1 <= content["classes"] <= 256:
        raise ValueError(f"{content['classes']} classes")
    _require(content["options"], _BESIDE)
    _require_options(content["options"])
    told = {"tiles": (int,), "skipped": (int,), "scale": _NUMBER, "job": (dict,)}
    _require(content["told"], told)
    job = content["told"]["job"]
    region = job.get("region")
    if not is_job(job) or not isinstance(job.get("slide"), str):
        raise ValueError("its settings are none of a mask")
    if region is not None and not (
        isinstance(region, list) and len(region) == 4 and all(type(n) is int for n in region)
    ):
        raise ValueError(f"region {region}")
    return SharedJob(**content | {"parts": parts})


def _require(content: Any, kinds: dict[str, tuple[type, ...]]) -> None:
    if not isinstance(content, dict) or content.keys() != kinds.keys():
        raise ValueError(f"it does not tell {', '.join(kinds)}")
    for name, kind in kinds.items():
        if type(content[name]) not in kind:  # True is no number
            raise ValueError(f"{name} cannot be {content[name]!r:.40}")


def _require_options(options: dict[str, Any]) -> None:
    for name in ("overlay", "table"):
        if isinstance(options[name], str) and options[name] != file_name(options[name]):
            raise ValueError(f"{name} {options[name]!r:.40} does not lie beside the mask")
    if options["on_error"] not in ON_ERROR:
        raise ValueError(f"on_error {options['on_error']!r:.40}")
    Options(**options)


def _are_rows(rows: Any) -> bool:
    return (
        isinstance(rows, list)
        and len(rows) == 2
        and all(type(row) is int for row in rows)
        and 0 <= rows[0] < rows[1] < 2**31
    )
