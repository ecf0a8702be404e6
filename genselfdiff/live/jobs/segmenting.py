"""Whole slides segmented from the page, by ``gsd segment``."""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from genselfdiff.files import writing
from genselfdiff.live.blocks import Picture
from genselfdiff.live.jobs.job import Job, Jobs
from genselfdiff.live.predictions import Model
from genselfdiff.resumable_file import unfinished
from genselfdiff.storage.places import Url
from genselfdiff.text import file_name, shown
from genselfdiff.viewer.library import Library


class Segmenting:
    """Masks of whole slides, which are shown once they are finished.

    Args:
        library: the slides.
        models: those that predict; may become more.
        folder: where masks go; None: each beside its slide, of one by URL into this folder.
        options: further words of ``gsd segment``.
        jobs: what runs them.
    """

    def __init__(
        self,
        library: Library,
        models: Sequence[Model],
        folder: Path | None,
        options: Sequence[str],
        jobs: Jobs,
    ) -> None:
        self._library, self._models, self._folder = library, models, folder
        self._options, self._jobs = options, jobs
        self._begun: dict[Picture, Job] = {}
        self._lock = Lock()

    def start(self, picture: Picture) -> None:
        """Segment a slide, or go on with it.

        Raises:
            LookupError: there is no such slide or model.
            OutputError: the folder of the mask cannot be made.
        """
        slide, model = self._library.entries[picture.slide].slide, self._models[picture.model]
        mask = self.mask(picture)
        with writing(mask.parent):
            mask.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            job = self._begun.get(picture)
            if job is not None and job.state in ("waiting", "running", "done"):
                return
            words = ["segment", "-o", str(mask), "--model", model.address, *self._options]
            slide_word = slide.address if isinstance(slide, Url) else str(slide)
            job = Job([[*words, "--", slide_word]], lambda: self._library.add(picture.slide, mask))
            self._begun[picture] = job
        self._jobs.add(job)

    def stop(self, picture: Picture) -> None:
        """Stop segmenting a slide; what is finished of the mask is kept.

        Raises:
            LookupError: nobody has begun it.
        """
        self._begun[picture].stop()

    def told(self, slide: int) -> list[dict[str, Any]]:
        """Tell of each model how far it is with a slide.

        Raises:
            LookupError: there is no such slide.
        """
        found = []
        for number, model in enumerate(self._models):
            picture = Picture(number, slide)
            mask, job = self.mask(picture), self._begun.get(picture)
            state = {"state": "unfinished" if unfinished(mask) else "", "error": ""}
            state |= {"model": shown(model.name), "mask": shown(str(mask))}
            found.append(state | (job.told() if job is not None else {"progress": None}))
        return found

    def mask(self, picture: Picture) -> Path:
        """Where a mask goes, as ``gsd segment`` would name it; those of further models tell which.

        Raises:
            LookupError: there is no such slide or model.
        """
        slide = self._library.entries[picture.slide].slide
        folder = self._folder or (Path() if isinstance(slide, Url) else slide.parent)
        of_model = f"_{_label(self._models, picture.model)}" if picture.model else ""
        return folder / f"{slide.stem}{of_model}_mask.tif"


def _label(models: Sequence[Model], number: int) -> str:
    """The name of a model as part of the name of a file."""
    names = [file_name(Path(model.name).stem) for model in models]
    twice = names.count(names[number]) > 1
    return f"{names[number]}_{number + 1}" if twice else names[number]
