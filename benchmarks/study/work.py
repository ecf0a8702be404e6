"""Doing one run of the study with gsd's own functions, and keeping what came of it."""

import json
import math
import platform
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from images import Part, fingerprint, lay, training_images
from plan import STAGE_1, Run, digest

from genselfdiff import info
from genselfdiff.evaluation.evaluate import evaluate
from genselfdiff.evaluation.scores import EvaluationReport
from genselfdiff.files import write_text
from genselfdiff.training.export import export
from genselfdiff.training.loop.tracking import OnLog
from genselfdiff.training.run_folder import RunFolder, read_checkpoint
from genselfdiff.training.runs import finetune, pretrain
from genselfdiff.training.settings.stage_configs import FinetuneConfig, PretrainConfig
from genselfdiff.version import __version__
from genselfdiff.working_files import lock, open_own

METRICS = ("dice", "aji", "pq")


class Taken(Exception):
    """Another process is at work on what a run starts from."""


class Workplace:
    """Where runs are done.

    Args:
        data: folder of the data sets.
        results: gets a small JSON file for each run that is done.
        work: gets links to images, and the folders of runs: gigabytes, which processes that share
            the work have to share as well, if none of them is to repeat another's stage 1.
    """

    def __init__(self, data: Path, results: Path, work: Path) -> None:
        self.data = data
        self.results = results
        self.work = work

    def name(self, run: Run) -> str:
        """What a run is called here."""
        return run.identity(self._images(run))

    def result(self, run: Run) -> Path:
        """The file of a run's result."""
        return self.results / f"{self.name(run)}.json"

    @contextmanager
    def claimed(self, name: str) -> Iterator[bool]:
        """Whether what is called ``name`` is this process's during the block.

        The lock ends with the process, however that ends. A file system without locks, as some of
        networks are, says yes to all.
        """
        folder = self.work / "claims"
        folder.mkdir(parents=True, exist_ok=True)
        with open_own(folder / f"{name}.lock", create=True) as mark:
            yield lock(mark.fileno()) is not False

    def do(self, run: Run, on_log: OnLog | None = None) -> None:
        """Train, or go on with it, score, and write the result; weights are removed.

        Raises:
            Taken: another process is pretraining what it starts from.
            GsdError: as by `finetune`, `pretrain` and `evaluate`.
        """
        development, test = lay(run, self.data, self.work / "images")
        config = self.stage_2(run, development)
        if run.arm.init == STAGE_1:
            config = replace(config, init=str(self._pretrained(run, development, on_log)))
        folder = RunFolder(self.work / "runs" / self.name(run))
        if folder.config.exists():
            finetune(FinetuneConfig.read(folder.config), folder.path, resume=True, on_log=on_log)
        else:
            finetune(config, folder.path, on_log=on_log)
        model = folder.path / "model.ts"
        export(folder.path, model, overwrite=True)
        report = evaluate(
            model,
            test.images,
            test.masks,
            mpp=run.dataset.mpp,
            foreground=True,
            truth_objects=test.objects,
            precision="float32",  # on every machine, and without comparing it for each image
        )
        self.results.mkdir(parents=True, exist_ok=True)
        told = self._told(run, folder, report)
        write_text(self.result(run), json.dumps(told, indent=1) + "\n")
        for path in (folder.latest, folder.best, model):  # hundreds of MB a run
            path.unlink()

    def stage_1(self, run: Run, development: Part) -> PretrainConfig:
        """Settings of what a run starts from: all images that do not test, without labels."""
        return PretrainConfig(
            data=(str(development.images),),
            mpp=run.dataset.mpp,
            image_mpp=run.dataset.mpp,
            seed=run.seed,
            **run.arm.pretrain,
        )

    def stage_2(self, run: Run, development: Part) -> FinetuneConfig:
        """Settings of a run, but for the checkpoint of stage 1 that it starts from."""
        return FinetuneConfig(
            init="none" if run.arm.init == STAGE_1 else run.arm.init,
            images=str(development.images),
            masks=str(development.masks),
            foreground=True,
            mpp=run.dataset.mpp,
            group=run.dataset.group,
            train_images=training_images(run, development),
            seed=run.seed,
            **run.arm.finetune,
        )

    def _pretrained(self, run: Run, development: Part, on_log: OnLog | None) -> Path:
        """The checkpoint of stage 1 after the steps that the run asks for."""
        name, steps = run.stage_1(self._images(run)), run.pretrain_steps
        folder = RunFolder(self.work / "runs" / name)
        with self.claimed(name) as mine:
            if folder.kept(steps).exists():
                return folder.kept(steps)
            if not mine:
                raise Taken
            if folder.config.exists():
                begun = PretrainConfig.read(folder.config)
                longer = replace(begun, steps=max(begun.steps, steps))
                pretrain(longer, folder.path, resume=True, on_log=on_log)
            else:
                pretrain(self.stage_1(run, development), folder.path, on_log=on_log)
        return folder.kept(steps)

    def _images(self, run: Run) -> str:
        return fingerprint(self.data, run.dataset)

    def _told(self, run: Run, folder: RunFolder, report: EvaluationReport) -> dict[str, Any]:
        config = FinetuneConfig.read(folder.config)
        counts = next(record["data"] for record in folder.read_metrics() if "data" in record)
        return {
            "dataset": run.dataset.name,
            "budget": run.budget,
            "arm": run.arm.name,
            "seed": run.seed,
            "settings": digest(run.settings),
            "images": self._images(run),
            "pretrain": self._told_of_stage_1(run),
            **{key.replace(" ", "_"): count for key, count in counts.items()},
            "validation_dice": read_checkpoint(folder.best).state.best,
            "step_seconds": _step_seconds(folder, config.batch_size),
            "machine": machine(),
            "finetune": config.shareable(),
            "scores": {
                image.name: {key: _number(image.by_class[key][1]) for key in METRICS}
                for image in report.images
            },
        }

    def _told_of_stage_1(self, run: Run) -> dict[str, Any] | None:
        if not run.pretrain_steps:
            return None
        folder = RunFolder(self.work / "runs" / run.stage_1(self._images(run)))
        losses = {r["step"]: r["validation"] for r in folder.read_metrics() if "validation" in r}
        return {
            "steps": run.pretrain_steps,
            "validation_loss": losses.get(run.pretrain_steps, {}).get("score"),
            "step_seconds": _step_seconds(folder, run.arm.pretrain["batch_size"]),
        }


def machine() -> dict[str, str]:
    """What computes here, and its versions."""
    told = {"genselfdiff": __version__, "python": platform.python_version()}
    wanted = ("torch", "processor", "gpu", "cuda", "mps", "kernels use")
    found = {what: value for what, value in info.describe() if what in wanted}
    return told | found | {"threads": str(torch.get_num_threads())}


def _step_seconds(folder: RunFolder, batch_size: int) -> float:
    """Median of the lines of a run's metrics, validation left out."""
    speeds = [r["images_per_s"] for r in folder.read_metrics() if "images_per_s" in r]
    return round(batch_size / statistics.median(speeds), 4)


def _number(value: float) -> float | None:
    return round(float(value), 6) if math.isfinite(value) else None
