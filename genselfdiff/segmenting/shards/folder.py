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
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from genselfdiff.errors import InputError, OutputError
from genselfdiff.input_files import parse_json, read_bytes
from genselfdiff.json_records import as_json, values_of
from genselfdiff.segmenting.jobs.job import Job
from genselfdiff.segmenting.jobs.mask_description import MaskDescription
from genselfdiff.segmenting.jobs.mask_state import MaskState, Stage
from genselfdiff.segmenting.options import Options
from genselfdiff.segmenting.output_files import OutputFiles
from genselfdiff.text import file_name
from genselfdiff.working_files import remove_abandoned

FOLDER_SUFFIX = ".shards"
JOB_NAME = "job.json"

_LARGEST_JOB = 2**20
"""Bytes: 30,000 shards have fewer."""

_PATIENCE = 20
"""Tenths of a second for another shard to write the job."""

_JOB: dict[str, Any] = {
    "slide": str,
    "listed": str | None,
    "classes": int,
    "shards": int,
    "parts": dict,
    "options": dict,
    "told": MaskDescription,
}
"""What a job tells, and the types of that."""

_PART = re.compile(r"part-\d+(_probabilities)?\.tif|\.part-\d+.*\.(partial|journal)")
"""What shards leave beside the job."""

_BESIDE = (
    "mpp",
    "on_error",
    "icc",
    "overlay",
    "overlay_width",
    "outline",
    "geojson",
    "table",
    "labels",
    "instances",
    "seed_distance",
    "min_area",
    "report",
    "probabilities",
    "zarr",
)
"""The options that decide what is written beside a mask."""

_FILES = ("overlay", "table")
"""Those of them that can name a file."""


@dataclass(frozen=True)
class SharedJob:
    """What the processes that share a slide agree on.

    Attributes:
        slide: where the slide was when they began.
        listed: the slide's name in the summary of its folder; None: it gets no row there.
        classes: how many there are.
        shards: how many processes.
        parts: rows of the window, from and to, of each shard that has any, by its number.
        options: those that decide what is written beside the mask, see `beside_options`.
        description: what the mask shall say of itself.
    """

    slide: str
    listed: str | None
    classes: int
    shards: int
    parts: dict[int, tuple[int, int]]
    options: Options
    description: MaskDescription

    @property
    def job(self) -> Job:
        """What decides the pixels of the mask."""
        return self.description.job

    def part_job(self, index: int) -> Job:
        """What decides those of one part."""
        return replace(self.job, rows=self.parts[index])

    def options_at(self, mask: Path) -> Options:
        """The options for a mask wherever it lies now."""

        def placed(file: str | Path | bool | None) -> str | Path | bool | None:
            return mask.with_name(file) if isinstance(file, str) else file

        options = self.options
        return replace(options, overlay=placed(options.overlay), table=placed(options.table))

    def as_json(self) -> dict[str, Any]:
        """What ``read_job`` reads."""
        return {
            "slide": self.slide,
            "listed": self.listed,
            "classes": self.classes,
            "shards": self.shards,
            "parts": self.parts,
            "options": beside_json(self.options),
            "told": as_json(self.description),
        }


def folder_of(mask: Path) -> Path:
    """Where the parts of a mask lie."""
    return mask.with_name(mask.name + FOLDER_SUFFIX)


def part_files(folder: Path, index: int, options: Options) -> OutputFiles:
    """The files that one shard leaves in the folder."""
    only = Options(probabilities=options.probabilities)
    return OutputFiles.of(folder / f"part-{index}.tif", only)


def missing_parts(folder: Path, shared: SharedJob, options: Options) -> list[int]:
    """The shards whose parts are not there, or of another job that was in this folder."""

    def is_missing(index: int) -> bool:
        state = MaskState.of(part_files(folder, index, options), shared.classes)
        return state.stage(shared.part_job(index)) is not Stage.FINISHED

    return [index for index in shared.parts if is_missing(index)]


def beside_options(options: Options, mask: Path) -> Options:
    """Of ``options`` what decides what lies beside ``mask``, files there by their names.

    Raises:
        InputError: a file that shall lie beside it would lie in another folder.
    """
    values = {name: getattr(options, name) for name in _BESIDE}
    for name in _FILES:
        if not isinstance(values[name], bool | None):
            file = Path(values[name])
            folders = {os.path.realpath(path.parent) for path in (file, mask)}
            if len(folders) > 1 or file.name != file_name(file.name):
                raise InputError(
                    f"{file}: of shards, it has to lie beside the mask, under a plain name: name a"
                    f" file in {mask.parent}"
                )
            values[name] = file.name
    return Options(**values)


def beside_json(options: Options) -> dict[str, Any]:
    """What `beside_options` has left, as JSON has it."""
    return {name: getattr(options, name) for name in _BESIDE}


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
    values = values_of(content, _JOB)
    parts = {
        int(index): (rows[0], rows[1])
        for index, rows in values["parts"].items()
        if re.fullmatch(r"[1-9]\d{0,8}", index) and _are_rows(rows)
    }
    spans = sorted(parts.values())
    if (
        not parts
        or len(parts) < len(values["parts"])
        or max(parts) > values["shards"]
        or spans[0][0] != 0
        or any(end != begin for (_, end), (begin, _) in itertools.pairwise(spans))
    ):
        raise ValueError("its parts are none of a slide")
    if not 1 <= values["classes"] <= 256:
        raise ValueError(f"{values['classes']} classes")
    return SharedJob(
        slide=values["slide"],
        listed=values["listed"],
        classes=values["classes"],
        shards=values["shards"],
        parts=parts,
        options=_checked_options(values["options"]),
        description=values["told"],
    )


def _checked_options(content: Any) -> Options:
    kinds = {part.name: part.type for part in fields(Options) if part.name in _BESIDE}
    values = values_of(content, kinds)
    for name in _FILES:
        if isinstance(values[name], str) and values[name] != file_name(values[name]):
            raise ValueError(f"{name} {values[name]!r:.40} does not lie beside the mask")
    return Options(**values)


def _are_rows(rows: Any) -> bool:
    return (
        isinstance(rows, list)
        and len(rows) == 2
        and all(type(row) is int for row in rows)
        and 0 <= rows[0] < rows[1] < 2**31
    )
