"""One slide, or a list of them, shared by several processes through a common folder only.

All slides of a command lie end to end, and the line is cut into equal parts, one a shard: most
slides are one shard's alone. Of a slide that is cut each leaves its part, see ``folder``; ``merge``
makes the mask of them, with the bytes one process would write. The workers of a fleet cut and join
by the same functions, and are given parts one by one.
"""

import json
import logging
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from genselfdiff.errors import InputError, OutputError
from genselfdiff.files import write_once
from genselfdiff.inference.predictor import Predictor
from genselfdiff.json_records import as_json
from genselfdiff.resumable_file import ResumableFile, differences
from genselfdiff.segmenting.jobs.job import Request, requested, warn_of_other_machine
from genselfdiff.segmenting.jobs.mask_state import MaskState, Stage
from genselfdiff.segmenting.layout import Layout
from genselfdiff.segmenting.one_slide import choose, finished_at, obey, predict
from genselfdiff.segmenting.options import Options
from genselfdiff.segmenting.output_files import OutputFiles, refuse_sent_zarr
from genselfdiff.segmenting.shards.folder import (
    JOB_NAME,
    SharedJob,
    beside_json,
    beside_options,
    folder_of,
    missing_parts,
    part_files,
    read_job,
    require_own_folder,
)
from genselfdiff.segmenting.sidecars import made_otherwise
from genselfdiff.segmenting.slide_task import SlideTask
from genselfdiff.storage.places import Place, Url
from genselfdiff.storage.uploading import is_there, scratch_with
from genselfdiff.text import counted, shell_command

logger = logging.getLogger("genselfdiff")

_CUT_AT = 512
"""Rows of a mask between which a slide is cut: the tiles of its file are not."""


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
class Share:
    """What one process does of a slide that several share.

    Attributes:
        shard: which process it is.
        pieces: which shards have which parts of the slide.
        listed: the slide's name in the summary of its folder; None: it gets no row there.
    """

    shard: Shard
    pieces: Sequence[Piece]
    listed: str | None


@dataclass(frozen=True)
class PartResult:
    """What one shard has left of a slide that several share: a part of its mask.

    Where the mask is finished already, ``part`` is the mask.
    """

    mask: Path
    part: Path
    missing: int
    elsewhere: Url | None = None

    def summary(self) -> str:
        """A line for people."""
        mask = self.mask if self.elsewhere is None else self.elsewhere / self.mask.name
        if self.part == self.mask:
            return f"{mask}: finished before by the same slide, model and settings"
        below = []
        if self.elsewhere is not None:
            below = ["--scratch", str(scratch_with(self.mask, self.elsewhere))]
        merge = shell_command(["gsd", "merge", str(mask), *below])
        if not self.missing:
            return f"{self.part}: done, as all parts: {merge}"
        return f"{self.part}: done; {counted(self.missing, 'more part')} before {merge}"


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
    elsewhere: Url | None,
    path: Place,
    output: Path,
    predictor: Predictor,
    options: Options,
    share: Share,
    progress: bool | None,
) -> PartResult:
    """Predict one process' share of a slide.

    Args:
        elsewhere: the folder that the mask will be sent to; None: it stays.
        path, output, predictor, options, progress: as ``segment_slide``.
        share: which one.

    Raises:
        InputError, ModelError: as ``segment``.
        OutputError: as ``segment``, or another shard has begun with another command.
    """
    if elsewhere is not None:
        refuse_sent_zarr(elsewhere, options)
    index, request = share.shard.index, requested(path, predictor, options)
    if is_finished(elsewhere, output, request, predictor, options):
        return PartResult(output, output, 0, elsewhere)
    with options.opened(path) as source:
        task = SlideTask.of(source, predictor, options, progress)
        shared = agree(task, output, request, share.pieces, share.listed, share.shard.count)
        if index in shared.parts:
            predict_part(task, output, shared, index)
    folder = folder_of(output)
    part = part_files(folder, index, options)
    missing = len(missing_parts(folder, shared, options))
    return PartResult(output, part.mask, missing, elsewhere)


def is_finished(
    elsewhere: Url | None, output: Path, request: Request, predictor: Predictor, options: Options
) -> bool:
    """Whether a mask is there as ``request`` has it, so that no part of it is to be predicted.

    Raises:
        OutputError: what is there is in the way, or lacks what shall lie beside it.
        InputError: a file that shall lie beside the mask would lie in another folder.
    """
    files = OutputFiles.of(output, options)
    files.check()
    beside_options(options, output)
    if elsewhere is not None and not folder_of(output).exists():
        if finished_at(elsewhere / output.name, request, options) is not None:
            missing = [path for path in files.all()[1:] if not is_there(elsewhere / path.name)]
            if missing:
                raise _lacking(elsewhere / missing[0].name, elsewhere / output.name)
            return True
        for url in (elsewhere / path.name for path in files.all()):
            if is_there(url):
                raise OutputError(
                    f"{url}: exists already, and not as this run would make it: name another"
                    " folder, or remove it"
                )
    state = MaskState.of(files, len(predictor.model.info.classes))
    stage = state.stage(request, accept_damaged=options.on_error != "fail")
    if stage is Stage.FINISHED and state.mask is not None:
        # While the folder is there, a merge has not yet written what goes beside the mask.
        is_merging = folder_of(output).exists()
        others = [] if is_merging else made_otherwise(files, options, state.mask.job)
        if others:
            raise _lacking(others[0], output)
        return True
    files.refuse_existing(but_probabilities=state.has_probabilities(request))
    if state.journal is not None:
        raise OutputError(
            f"{output}: a run without --shard has begun it: repeat that command, or delete"
            f" {ResumableFile(output).partial} to share it out"
        )
    return False


def _lacking(path: Place, mask: Place) -> OutputError:
    return OutputError(
        f"{path}: is not there or was made with other settings, but {mask} is finished: repeat the"
        " command without --shard to have it made"
    )


def agree(
    task: SlideTask,
    output: Path,
    request: Request,
    pieces: Sequence[Piece],
    listed: str | None,
    shards: int | None = None,
) -> SharedJob:
    """Settle how a slide is cut and predicted, as the first process to come has it, and obey.

    Args:
        task: the slide, and what predicts it.
        output: the mask.
        request: what is asked for.
        pieces: how the slide is cut, if this is the first.
        listed: see `Share`.
        shards: how many processes there are; None: as many as the first has found.

    Raises:
        InputError: what the first has left is none of this slide, or cannot be read.
        OutputError: it had another command; or the folder of parts cannot be made.
    """
    folder, beside = folder_of(output), beside_options(task.options, output)
    require_own_folder(folder)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}") from error
    if not (folder / JOB_NAME).exists():
        path = task.source.path
        proposal = SharedJob(
            slide=path.address if isinstance(path, Url) else str(path.absolute()),
            listed=listed,
            classes=len(task.predictor.model.info.classes),
            shards=max(piece.shard for piece in pieces) if shards is None else shards,
            parts=_parts(task.layout, pieces),
            options=beside,
            description=task.describe(choose(task, request)),
        )
        if not write_once(folder / JOB_NAME, json.dumps(proposal.as_json(), indent=1)):
            logger.debug("%s: another shard was first", folder)
    shared = read_job(folder)
    _check_same(folder, shared, request, beside, shards)
    if max(end for _, end in shared.parts.values()) != task.layout.window[3]:
        raise InputError(f"{folder / JOB_NAME}: is of another slide: delete {folder}")
    obey(task, shared.job)
    return shared


def predict_part(task: SlideTask, output: Path, shared: SharedJob, index: int) -> None:
    """Predict a part, or what is left to do of it.

    Raises:
        InputError, ModelError, OutputError: as ``segment``.
    """
    files, job = part_files(folder_of(output), index, task.options), shared.part_job(index)
    state = MaskState.of(files, shared.classes)
    if state.stage(job) is not Stage.FINISHED:
        rows = task.rows(*shared.parts[index])
        predict(rows, state.still_wanted(files, job), rows.describe(job), restart=False)


def _parts(layout: Layout, pieces: Sequence[Piece]) -> dict[int, tuple[int, int]]:
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

    rows = {piece.shard: (row(piece.begin), row(piece.end)) for piece in pieces}
    return {index: span for index, span in rows.items() if span[0] < span[1]}


def _check_same(
    folder: Path, shared: SharedJob, request: Request, beside: Options, shards: int | None
) -> None:
    """Raise OutputError where this shard has another command than the one that began."""
    job = shared.job
    warn_of_other_machine(folder, request, job)
    asked = job.on_this_machine(request.chosen_as(job))
    command = as_json(asked) | {"shards": shards or shared.shards} | beside_json(beside)
    first = as_json(job) | {"shards": shared.shards} | beside_json(shared.options)
    if command != first:
        raise OutputError(
            f"{folder}: was begun with {differences(first, command)}: give all shards the same"
            " command, or delete this folder to start anew"
        )
