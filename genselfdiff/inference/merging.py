"""The mask of a slide from the parts that several processes have left of it, see ``shards``."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genselfdiff.errors import InputError, one_line
from genselfdiff.inference.beside import write_beside
from genselfdiff.inference.job import content_of
from genselfdiff.inference.mask_state import finished, made_by, result_of
from genselfdiff.inference.output_files import OutputFiles
from genselfdiff.inference.shard_folder import (
    FOLDER_SUFFIX,
    JOB_NAME,
    folder_of,
    missing_parts,
    options_from_json,
    part_files,
    read_job,
)
from genselfdiff.inference.summary import Summary
from genselfdiff.slides import MaskReader, MaskWriter, ProbabilityWriter, open_slide

logger = logging.getLogger("genselfdiff")

Uint8 = NDArray[np.uint8]


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

    Shards that worked into a folder of masks get the slide its row in the folder's summary.

    Raises:
        InputError: parts are missing or damaged, or the folder has a summary of somebody else.
        OutputError: a file cannot be written.
    """
    folder = folder_of(mask)
    if not folder.is_dir():
        raise InputError(f"{mask}: no parts of it in {folder}: gsd segment --shard leaves them")
    shared = read_job(folder)
    told = shared["told"]
    options = options_from_json(shared, mask)
    files = OutputFiles.of(mask, options)
    listed: str | None = shared["listed"]
    summary = None if listed is None else Summary(mask.parent)
    begin = time.perf_counter()
    done = finished(files)
    if done is None or done["job"] != told["job"]:
        missing = missing_parts(folder, shared, options)
        if missing:
            names = ", ".join(f"{index}/{shared['shards']}" for index in missing)
            raise InputError(f"{mask}: not finished yet: run gsd segment with --shard {names}")
        made = made_by(files.probabilities, shared["classes"])
        files.refuse_existing(but_probabilities=made == told["job"])
        parts = [part_files(folder, int(index), options) for index in shared["parts"]]
        _join(files, parts, list(shared["parts"].values()), told)
    done = finished(files)
    assert done is not None
    slide = Path(shared["slide"])
    result = result_of(slide, files, done, finished_before=True)
    if any((files.overlay, files.geojson, files.table, files.labels, files.report)):
        if not slide.exists() or content_of(slide) != told["job"]["slide"]:
            raise InputError(
                f"{slide}: is not there, or another slide by now, but what is beside {mask} is"
                f" drawn from it: put it back and repeat gsd merge {mask}"
            )
        with open_slide(slide, mpp=options.mpp, on_error=options.on_error) as source:
            objects = write_beside(source, result, options, done["job"], keep=True)
        result = replace(result, objects=objects)
    if summary is not None and listed is not None:
        result = replace(result, seconds=time.perf_counter() - begin)
        summary.add(Path(listed), result, None)
    _remove(folder)
    return files


def _mask_of(folder: Path) -> Path:
    return folder.with_name(folder.name.removesuffix(FOLDER_SUFFIX))


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
        writer.from_damaged = any(map(_is_from_damaged, parts))
        for band in bands([part.mask for part in parts], 1):
            writer.push(band)


def _is_from_damaged(part: OutputFiles) -> bool:
    with MaskReader(part.mask) as reader:
        return bool(reader.description.get("from_damaged"))
