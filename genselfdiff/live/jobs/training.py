"""Training from the page, by ``gsd train finetune`` and ``gsd export``, and the curves of runs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from genselfdiff.input_files import read_csv_rows
from genselfdiff.live.jobs.job import Job, Jobs
from genselfdiff.live.predictions import Model, Predictions
from genselfdiff.models.shipped import catalogue
from genselfdiff.slides.discovery import CORRECTIONS_JOURNAL
from genselfdiff.text import shown
from genselfdiff.training.metrics_file import METRICS, read_metrics
from genselfdiff.training.settings.run_config import CONFIG
from genselfdiff.training.settings.stage_configs import FinetuneConfig, read_run_config
from genselfdiff.viewer.corrections.folder import Corrections

MODEL_NAME = "model.ts"
"""What a run is exported to, in its folder."""

_RUN = re.compile("run([0-9]+)")


@dataclass(frozen=True)
class TrainingPlan:
    """What training in the page is told beforehand.

    Attributes:
        labelled: folder of corrections, or of labelled images as ``gsd data import`` writes it.
        runs: folder of the runs, ``run1`` and so on.
        init: what they start from, as ``gsd train finetune --init`` takes it.
        options: further words of ``gsd train finetune``.
    """

    labelled: Path
    runs: Path
    init: str
    options: tuple[str, ...]


class Training:
    """Runs, whose models predict once they are finished.

    Args:
        plan: see there.
        predictions: is given the models.
        jobs: what runs them.
    """

    def __init__(self, plan: TrainingPlan, predictions: Predictions, jobs: Jobs) -> None:
        self._plan, self._predictions, self._jobs = plan, predictions, jobs
        self._job: Job | None = None
        self._lock = Lock()

    def start(self) -> None:
        """Begin a run with what is labelled now, unless one is at work."""
        with self._lock:
            if self._is_at_work():
                return
            number = max((number for number, _ in self._runs()), default=0) + 1
            run = self._plan.runs / f"run{number}"
            folder = str(self._plan.labelled)
            words = ["--init", self._plan.init, *self._plan.options, "--out", str(run)]
            words += ["--instances"] if _finds_objects(self._plan) else []
            is_drawn = (self._plan.labelled / CORRECTIONS_JOURNAL).exists()
            before = [["data", "corrections", "--", folder]] if is_drawn else []
            self._begin(run, [*before, ["train", "finetune", *words, "--", folder]])

    def go_on(self) -> None:
        """Go on with the last run, unless one is at work.

        Raises:
            LookupError: there is none that can go on.
        """
        with self._lock:
            if not self._is_at_work():
                run = self._unfinished()
                if run is None:
                    raise LookupError("no run is unfinished")
                self._begin(run, [["train", "finetune", "--out", str(run), "--resume"]])

    def stop(self) -> None:
        """Stop the run that is at work; it can go on later."""
        if self._job is not None:
            self._job.stop()

    def told(self) -> dict[str, Any]:
        """Tell of the last run, with its curves."""
        runs = list(self._runs())
        run = runs[-1][1] if runs else None
        with self._lock:
            unfinished = not self._is_at_work() and self._unfinished() is not None
        return {
            "folder": shown(str(self._plan.labelled)),
            "init": shown(self._plan.init),
            "run": "" if run is None else shown(str(run)),
            "unfinished": unfinished,
            "job": None if self._job is None else self._job.told(),
            **_curves(run),
        }

    def _begin(self, run: Path, steps: list[Sequence[str]]) -> None:
        model = run / MODEL_NAME
        steps.append(["export", "-o", str(model), "--overwrite", str(run)])
        self._job = Job(
            steps, lambda: self._predictions.add(Model(str(model.absolute()), run.name))
        )
        self._jobs.add(self._job)

    def _is_at_work(self) -> bool:
        return self._job is not None and self._job.state in ("waiting", "running")

    def _unfinished(self) -> Path | None:
        """The last run, if it has begun and left no model."""
        runs = list(self._runs())
        run = runs[-1][1] if runs else None
        is_begun = run is not None and (run / CONFIG).exists()
        return run if run is not None and is_begun and not (run / MODEL_NAME).exists() else None

    def _runs(self) -> list[tuple[int, Path]]:
        """The runs that there are, by their numbers."""
        folder = self._plan.runs
        there = folder.iterdir() if folder.is_dir() else ()
        named = [(_RUN.fullmatch(path.name), path) for path in there]
        return sorted((int(match[1]), path) for match, path in named if match)


def _finds_objects(plan: TrainingPlan) -> bool:
    """Whether training goes on from a model that tells objects of one class apart."""
    if not _tells_objects_apart(plan.init):
        return False
    if (plan.labelled / CORRECTIONS_JOURNAL).exists():  # whose classes are not written yet
        return len(Corrections(plan.labelled).classes()) == 2
    if not (plan.labelled / "instances").is_dir():
        return False
    table = plan.labelled / "classes.csv"
    return not table.exists() or len(read_csv_rows(table)[1]) == 2


def _tells_objects_apart(init: str) -> bool:
    """Of a shipped model or a run."""
    name = catalogue.name_of(init)
    if name is not None:
        return catalogue.read_info(name).instances
    settings = Path(init) / CONFIG
    if not settings.exists():
        return False
    config = read_run_config(settings)
    return isinstance(config, FinetuneConfig) and config.instances


def _curves(run: Path | None) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of the loss, and of the validation's score."""
    records = [] if run is None else read_metrics(run / METRICS)
    return {
        "loss": [(record["step"], record["loss"]) for record in records if "loss" in record],
        "score": [
            (record["step"], record["validation"]["score"])
            for record in records
            if "validation" in record
        ],
    }
