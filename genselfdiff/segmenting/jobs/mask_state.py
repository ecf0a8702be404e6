"""What a run finds where its mask shall be, and whether that is what it would make."""

import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from genselfdiff.errors import OutputError
from genselfdiff.json_records import as_json, from_json
from genselfdiff.resumable_file import differences, last_record, unfinished
from genselfdiff.segmenting.jobs.job import Job, Request
from genselfdiff.segmenting.jobs.mask_description import FinishedMask, read_probabilities_job
from genselfdiff.segmenting.output_files import OutputFiles
from genselfdiff.segmenting.result import SegmentResult
from genselfdiff.storage.places import Place


class Stage(Enum):
    """How far a mask is that somebody asks for."""

    ABSENT = "nothing of it is there"
    BEGUN = "a run of the same work was stopped, and another goes on with it"
    FINISHED = "it is there"
    FOREIGN = "something else is there, or was begun"


@dataclass(frozen=True)
class MaskState:
    """What is there of a mask, and of the probabilities where these are wanted beside it.

    Attributes:
        mask: what is finished, with its probabilities where they are wanted.
        journal: the job of a run that has begun the mask and was stopped.
        has_blanks: that run has taken damaged tiles of the slide for glass.
        probabilities: the job that made the file of probabilities.
        is_taken: a file has the mask's name that is no such mask, or lacks its probabilities.
    """

    mask: FinishedMask | None = None
    journal: Job | None = None
    probabilities: Job | None = None
    is_taken: bool = False
    has_blanks: bool = False

    @classmethod
    def of(cls, files: OutputFiles, classes: int, *, overwrite: bool = False) -> "MaskState":
        """Look at the files of a mask.

        Args:
            files: the mask, and what is wanted beside it.
            classes: how many planes its probabilities have.
            overwrite: what is finished shall be made anew, and does not count.
        """
        journal = _journal_of(files.mask)
        has_blanks = journal is not None and bool(last_record(files.mask).get("from_damaged"))
        if overwrite:
            return cls(journal=journal, has_blanks=has_blanks)
        mask = FinishedMask.read(files.mask)
        planes = classes if mask is None else len(mask.pixels)
        probabilities = read_probabilities_job(files.probabilities, planes)
        if mask is not None and files.probabilities is not None and mask.job != probabilities:
            mask = None
        is_taken = mask is None and os.path.lexists(files.mask)
        return cls(mask, journal, probabilities, is_taken, has_blanks)

    def stage(self, request: Request, *, accept_damaged: bool = True) -> Stage:
        """What this is to a run.

        Args:
            request: what the run asks for.
            accept_damaged: also a mask with blank in place of damaged tiles.
        """
        if self.mask is not None:
            is_sound = accept_damaged or not self.mask.from_damaged
            return (
                Stage.FINISHED if is_sound and request.is_met_by(self.mask.job) else Stage.FOREIGN
            )
        begun = self.begun
        is_sound = accept_damaged or not self.has_blanks
        if self.is_taken or (begun is not None and not (is_sound and request.is_met_by(begun))):
            return Stage.FOREIGN
        return Stage.ABSENT if begun is None else Stage.BEGUN

    @property
    def begun(self) -> Job | None:
        """The job to go on with: a run may have made the probabilities, and nothing of the mask."""
        return self.journal or self.probabilities

    def has_probabilities(self, request: Request) -> bool:
        """Whether the probabilities that ``request`` asks for are there."""
        return self.probabilities is not None and request.is_met_by(self.probabilities)

    def still_wanted(self, files: OutputFiles, job: Job) -> OutputFiles:
        """``files`` without the probabilities, where ``job`` has made them already."""
        return files._replace(probabilities=None) if self.probabilities == job else files

    def refuse(
        self, files: OutputFiles, request: Request, *, accept_damaged: bool, overwrite: bool
    ) -> None:
        """Raise OutputError where something is in the way of a mask that is to be made."""
        if self.mask is not None:
            wanted = request.chosen_as(self.mask.job)
            other = differences(as_json(self.mask.job), as_json(wanted)) or (
                "damaged tiles taken for glass instead of an error (--on-error)"
            )
            raise OutputError(
                f"{files.mask}: exists already, and was made with {other}: name another file, or"
                " use --overwrite"
            )
        if (
            self.has_blanks
            and not accept_damaged
            and self.journal is not None
            and request.is_met_by(self.journal)
        ):
            raise OutputError(
                f"{files.mask}: was begun with damaged tiles taken for glass: go on so, with"
                " --on-error blank, or start anew with --overwrite"
            )
        files.refuse_existing(
            overwrite=overwrite, but_probabilities=self.has_probabilities(request)
        )


def result_of(
    slide: Place, files: OutputFiles, mask: FinishedMask, *, finished_before: bool
) -> SegmentResult:
    """The result that a mask tells of itself, without time, objects and damaged tiles."""
    return SegmentResult(
        slide=slide,
        files=files,
        width=mask.width,
        height=mask.height,
        mpp=mask.mpp,
        scale=mask.description.scale,
        tiles=mask.description.tiles,
        skipped=mask.description.skipped,
        seconds=0.0,
        device=mask.job.device,
        precision=mask.job.precision,
        pixels=mask.pixels,
        objects=None,
        finished_before=finished_before,
        blank_tiles=0,
    )


def _journal_of(mask: Path) -> Job | None:
    try:
        return from_json(Job, unfinished(mask))
    except ValueError:
        return None
