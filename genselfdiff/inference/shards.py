"""One slide, or a list of them, shared by several processes through a common folder only.

All slides of a command lie end to end, and the line is cut into equal parts, one a shard: most
slides are one shard's alone. What is left of a slide that is cut is a folder beside its mask-to-be
``job.json``, which the first shard to come writes and all obey, and a finished part of the
mask from each; ``merge_parts`` makes the mask of them, with the bytes one process would write.
"""

import json
import logging
import os
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genselfdiff.errors import InputError, OutputError, one_line
from genselfdiff.files import ResumableFile, begun_otherwise, unfinished, write_once
from genselfdiff.inference.beside import write_beside
from genselfdiff.inference.engine import (
    choose,
    describe,
    finished,
    made_by,
    predict,
    result_of,
)
from genselfdiff.inference.job import MACHINE, content_of, is_same_work, requested
from genselfdiff.inference.layout import Layout, lay_out
from genselfdiff.inference.memory import keep_within
from genselfdiff.inference.options import Options
from genselfdiff.inference.output_files import OutputFiles
from genselfdiff.inference.predictor import Predictor
from genselfdiff.slides import MaskReader, MaskWriter, ProbabilityWriter, open_slide

logger = logging.getLogger("genselfdiff")

Uint8 = NDArray[np.uint8]

FOLDER_SUFFIX = ".shards"
JOB_NAME = "job.json"
_CUT_AT = 512
"""Rows of a mask between which a slide is cut: the tiles of its file are not."""
_PATIENCE = 20
"""Tenths of a second for another shard to write the job."""


@dataclass(frozen=True)
class Shard:
    """The ``index``-th, from 1, of ``count`` processes."""

    index: int
    count: int


@dataclass(frozen=True)
class Piece:
    """The part of a slide between the fractions ``begin`` and ``end`` of its tiles."""

    shard: int
    begin: float
    end: float


@dataclass(frozen=True)
class PartResult:
    """What one shard has left of a slide that several share: a part of its mask.

    Where the mask is finished already, ``part`` is the mask.
    """

    mask: Path
    part: Path
    missing: int

    def summary(self) -> str:
        """A line for people."""
        if self.part == self.mask:
            return f"{self.mask}: finished before by the same slide, model and settings"
        if not self.missing:
            return f"{self.part}: done, as all parts: gsd merge {self.mask}"
        return f"{self.part}: done; {self.missing} more parts before gsd merge {self.mask}"


def share_out(sizes: Sequence[int], count: int) -> list[list[Piece]]:
    """Cut slides of these sizes, laid end to end, into ``count`` equal parts.

    Returns:
        For each slide its pieces in their order, of a slide of size 0 one.
    """
    total = sum(sizes)
    bounds = [total * i // count for i in range(count + 1)]
    shared = []
    for end, size in zip(accumulate(sizes), sizes, strict=True):
        begin = end - size
        pieces = [
            Piece(
                i + 1,
                (max(bounds[i], begin) - begin) / size,
                (min(bounds[i + 1], end) - begin) / size,
            )
            for i in range(count)
            if size and max(bounds[i], begin) < min(bounds[i + 1], end)
        ]
        owner = min(max(bisect_left(bounds, begin + 1), 1), count)
        shared.append(pieces or [Piece(owner, 0.0, 1.0)])
    return shared


def segment_part(
    path: Path,
    output: Path,
    predictor: Predictor,
    options: Options,
    shard: Shard,
    pieces: Sequence[Piece],
    *,
    progress: bool | None,
) -> PartResult:
    """Predict this shard's part of a slide.

    Raises:
        InputError, ModelError: as ``segment``.
        OutputError: as ``segment``, or another shard has begun with another command.
    """
    files = OutputFiles.of(output, options)
    files.check()
    request = requested(path, predictor, options)
    done = finished(files)
    if done is not None and is_same_work(done["job"], request):
        return PartResult(output, output, 0)
    merged = made_by(files.probabilities, len(predictor.model.info.classes))
    files.refuse_existing(but_probabilities=merged is not None and is_same_work(merged, request))
    if unfinished(output) is not None:
        raise OutputError(
            f"{output}: a run without --shard has begun it: repeat that command, or delete"
            f" {ResumableFile(output).partial} to share it out"
        )
    folder = _folder(output)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}") from error
    with open_slide(path, mpp=options.mpp, on_error=options.on_error) as source:
        layout = lay_out(source, predictor.model.info, options, progress)
        if not (folder / JOB_NAME).exists():
            content = {
                "slide": str(path.absolute()),
                "classes": len(predictor.model.info.classes),
                "shards": shard.count,
                "parts": _parts(layout, pieces),
                "options": _beside(options, output),
                "told": describe(
                    layout, choose(request, source, predictor, layout, options.max_memory)
                ),
            }
            if not write_once(folder / JOB_NAME, json.dumps(content, indent=1)):
                logger.debug("%s: another shard was first", folder)
        shared = _read_job(folder)
        job = shared["told"]["job"]
        _check_same(folder, shared, request, _beside(options, output), shard)
        if options.max_memory is not None:
            keep_within(options.max_memory, source, layout, predictor, job["batch size"])
        predictor.obey(job["precision"], job["threads"])
        part = _part_files(folder, shard.index, options)
        if str(shard.index) in _missing(folder, shared, options):
            rows = shared["parts"][str(shard.index)]
            mine = layout.rows(*rows)
            told = describe(mine, job | {"rows": rows})
            predict(
                source, mine, predictor, part, told, told["job"], restart=False, progress=progress
            )
    return PartResult(output, part.mask, len(_missing(folder, shared, options)))


def find_shared(paths: Sequence[Path]) -> list[Path]:
    """Masks to merge: those named, and in folders all whose parts lie there.

    Raises:
        InputError: there is none.
    """
    masks: list[Path] = []
    for path in paths:
        if path.is_dir() and not path.name.endswith(FOLDER_SUFFIX):
            found = sorted(path.glob(f"*{FOLDER_SUFFIX}/{JOB_NAME}"))
            masks += [_mask_of(job.parent) for job in found]
        else:
            masks.append(_mask_of(path) if path.name.endswith(FOLDER_SUFFIX) else path)
    if not masks:
        raise InputError(f"{paths[0]}: no parts of masks in it: gsd segment --shard leaves them")
    return masks


def merge_parts(mask: Path) -> OutputFiles:
    """Make a mask, and what is wanted beside it, of the parts that shards have left.

    Raises:
        InputError: parts are missing or damaged.
        OutputError: a file cannot be written.
    """
    folder = _folder(mask)
    if not folder.is_dir():
        raise InputError(f"{mask}: no parts of it in {folder}: gsd segment --shard leaves them")
    shared = _read_job(folder)
    told = shared["told"]
    options = _options(shared, mask)
    files = OutputFiles.of(mask, options)
    done = finished(files)
    if done is None or done["job"] != told["job"]:
        missing = _missing(folder, shared, options)
        if missing:
            names = ", ".join(f"{index}/{shared['shards']}" for index in missing)
            raise InputError(f"{mask}: not finished yet: run gsd segment with --shard {names}")
        made = made_by(files.probabilities, shared["classes"])
        files.refuse_existing(but_probabilities=made == told["job"])
        parts = [_part_files(folder, int(index), options) for index in shared["parts"]]
        _join(files, parts, list(shared["parts"].values()), told)
    done = finished(files)
    assert done is not None
    if any((files.overlay, files.geojson, files.table, files.report)):
        slide = Path(shared["slide"])
        if not slide.exists() or content_of(slide) != told["job"]["slide"]:
            raise InputError(
                f"{slide}: is not there, or another slide by now, but what is beside {mask} is"
                f" drawn from it: put it back and repeat gsd merge {mask}"
            )
        with open_slide(slide, mpp=options.mpp, on_error=options.on_error) as source:
            result = result_of(slide, source, files, done, finished_before=True)
            write_beside(source, result, options, done["job"], keep=True)
    _remove(folder)
    return files


def _folder(mask: Path) -> Path:
    return mask.with_name(mask.name + FOLDER_SUFFIX)


def _mask_of(folder: Path) -> Path:
    return folder.with_name(folder.name.removesuffix(FOLDER_SUFFIX))


def _part_files(folder: Path, index: int, options: Options) -> OutputFiles:
    only = Options(probabilities=options.probabilities)
    return OutputFiles.of(folder / f"part-{index}.tif", only)


def _missing(folder: Path, shared: dict[str, Any], options: Options) -> list[str]:
    """The shards whose parts are not there, or of another job that was in this folder."""

    def is_there(index: str) -> bool:
        done = finished(_part_files(folder, int(index), options))
        return done is not None and done["job"] == job | {"rows": shared["parts"][index]}

    job = shared["told"]["job"]
    return [index for index in shared["parts"] if not is_there(index)]


def _remove(folder: Path) -> None:
    """Remove what was merged, the job last: a merge that is stopped here can be repeated."""
    try:
        for path in sorted(folder.iterdir(), key=lambda path: path.name == JOB_NAME):
            path.unlink(missing_ok=True)
        folder.rmdir()
    except FileNotFoundError:
        logger.debug("%s: another merge was first", folder)
    except OSError as error:
        logger.warning("%s: is merged, but cannot be removed: %s", folder, one_line(error))


_BESIDE = (
    *("mpp", "on_error", "overlay", "overlay_width", "geojson", "table", "instances"),
    *("seed_distance", "min_area", "report", "probabilities"),
)
"""The options that decide what is written beside a mask."""


def _beside(options: Options, mask: Path) -> dict[str, Any]:
    """These options as JSON has them, and files as they are seen from the mask's folder."""

    def told(value: Any) -> Any:
        if isinstance(value, str | Path):
            return os.path.relpath(value, mask.parent)
        return value

    values = {name: getattr(options, name) for name in _BESIDE}
    return values | {name: told(values[name]) for name in ("overlay", "table")}


def _options(shared: dict[str, Any], mask: Path) -> Options:
    """What ``_beside`` has told."""
    values = shared["options"]
    files = {name: values[name] for name in ("overlay", "table") if isinstance(values[name], str)}
    return Options(**values | {name: mask.parent / file for name, file in files.items()})


def _parts(layout: Layout, pieces: Sequence[Piece]) -> dict[str, list[int]]:
    """Rows of the window, from and to, of each shard with any; cut by the tiles to predict."""
    grid, (_, top, _, height) = layout.grid, layout.window
    # A row without tissue takes time as well, if little: to read nothing, and to write its class.
    work = list(accumulate(len(columns) + 0.1 for columns in grid.wanted))
    starts = [grid.rows.starts[index] * layout.scale for index in grid.rows.needed]

    def row(fraction: float) -> int:
        if fraction in (0.0, 1.0):
            return round(fraction) * height
        start = starts[bisect_left(work, fraction * work[-1])]
        return min(max(round(start / _CUT_AT) * _CUT_AT - top, 0), height)

    rows = {str(piece.shard): [row(piece.begin), row(piece.end)] for piece in pieces}
    return {index: span for index, span in rows.items() if span[0] < span[1]}


def _read_job(folder: Path) -> dict[str, Any]:
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
    keys = {"slide", "classes", "shards", "parts", "options", "told"}
    if not isinstance(content, dict) or content.keys() != keys:
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


def _check_same(
    folder: Path,
    shared: dict[str, Any],
    request: dict[str, Any],
    beside: dict[str, Any],
    shard: Shard,
) -> None:
    """Raise OutputError where this shard has another command than the one that began."""
    job = shared["told"]["job"]
    asked = {key: job.get(key) if value is None else value for key, value in request.items()}
    for key in MACHINE:
        if asked[key] != job.get(key):
            logger.warning(
                "%s: %s %s here, %s where it was begun: a few pixels can differ",
                folder,
                key,
                asked[key],
                job.get(key),
            )
        asked[key] = job.get(key)
    begun = job | {"shards": shared["shards"]} | shared["options"]
    wanted = asked | {"shards": shard.count} | beside
    if begun != wanted:
        raise OutputError(
            f"{folder}: {begun_otherwise(begun, wanted)}: give all shards the same command, or"
            " delete this folder to start anew"
        )


def _join(
    files: OutputFiles,
    parts: Sequence[OutputFiles],
    rows: Sequence[list[int]],
    told: dict[str, Any],
) -> None:
    """Write the mask, and the probabilities if there are any, from the parts, in their order."""
    order = sorted(range(len(parts)), key=lambda i: rows[i])
    with MaskReader(parts[0].mask) as reader:
        x, y, width, height = told["job"]["region"] or (0, 0, reader.width, reader.height)
        shape: dict[str, Any] = {
            "width": reader.width,
            "height": reader.height,
            "mpp": reader.mpp,
            "window": (x, y, width, height),
        }
        names = reader.class_names
        palette = reader.palette[: len(names)]

    def bands(parts: Sequence[Path | None], planes: int) -> Iterator[Uint8]:
        for index in order:
            part = parts[index]
            assert part is not None
            first, last = rows[index]
            with MaskReader(part, planes) as reader:
                for band in reader.stacks(y + first, y + last):
                    yield band[:, :, x : x + width]

    made = made_by(files.probabilities, len(names))
    if files.probabilities is not None and made != told["job"]:
        with ProbabilityWriter(
            files.probabilities, class_names=names, job=told["job"], **shape
        ) as probabilities:
            for band in bands([part.probabilities for part in parts], len(names)):
                probabilities.push(band)
    with MaskWriter(
        files.mask, palette=palette, class_names=names, description=told, **shape
    ) as writer:
        for band in bands([part.mask for part in parts], 1):
            writer.push(band)
