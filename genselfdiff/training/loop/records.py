"""What a run writes while it trains, and how it goes on from that."""

import hashlib
import json
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from genselfdiff.errors import InputError, ModelError
from genselfdiff.models.weights import all_finite, load_initial_weights
from genselfdiff.text import counted
from genselfdiff.training.curves import draw_curves
from genselfdiff.training.loop.averaging import learning_parameters
from genselfdiff.training.loop.health import LossWatch
from genselfdiff.training.loop.step import MOMENTS, TrainingStep, learning_rate
from genselfdiff.training.loop.task import Task
from genselfdiff.training.loop.tracking import OnLog, Tracker
from genselfdiff.training.run_folder import Checkpoint, RunFolder, RunState, read_checkpoint

logger = logging.getLogger("genselfdiff")

SAVE_SECONDS = 300.0
"""A killed run loses at most this much work."""


def digest_of(names: tuple[list[str], list[str]]) -> str:
    """What tells whether a run goes on with the files that it began with."""
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]


def require_same_files(task: Task, run: RunFolder) -> None:
    """Refuse to go on with other files: the two sides would be drawn anew, and mixed.

    Raises:
        InputError: there are others than when the run began.
    """
    begun = next((record for record in run.read_metrics() if "files" in record), None)
    if begun is None or begun["files"] == digest_of(task.names):
        return
    then = ", ".join(f"{count} {name}" for name, count in begun["data"].items())
    now = ", ".join(f"{count} {name}" for name, count in task.counts.items())
    raise InputError(
        f"{run.path}: began with other files ({then}; now {now}): bring them back, or begin a new"
        f" run with --init {run.path} and another --out"
    )


class Records:
    """What the run writes: lines, validations, checkpoints, pictures; by the first process only."""

    def __init__(
        self,
        task: Task,
        step: TrainingStep,
        run: RunFolder,
        watch: LossWatch,
        done: int,
        on_log: OnLog | None = None,
    ) -> None:
        self.task = task
        self.step = step
        self.run = run
        self.watch = watch
        self.config = step.config
        self.world = step.world
        self.tracker: Tracker | None = None
        if self.world.is_first:
            self.tracker = Tracker(
                run, step=done, tensorboard=self.config.tensorboard, on_log=on_log
            )
            self.tracker.data(task.counts, digest_of(task.names))
        self.saved = time.monotonic()
        self.cpu_start = time.process_time()
        self._restart_clock(done)

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *_: object) -> None:
        if self.tracker is not None:
            self.tracker.close()

    def overdue(self) -> bool:
        """Whether much would be lost if the run were killed now."""
        return time.monotonic() - self.saved > SAVE_SECONDS

    def line(self, done: int) -> str:
        """Write the figures since the last line, and say them shortly."""
        self.watch.read(done, self.world)
        loss, norm = self.watch.line()
        seconds = time.monotonic() - self.started
        speed = (done - self.first_step) * self.config.batch_size / seconds
        if self.tracker is not None:
            self.tracker.training(
                done,
                {
                    "loss": loss,
                    "gradient_norm": norm,
                    "learning_rate": learning_rate(self.config, done - 1),
                    "images_per_s": round(speed, 2),
                    "cpu_s": round(time.process_time() - self.cpu_start, 1),
                },
            )
        return f"loss {loss:.4f}, {speed:.1f} images/s"

    def validate(self, done: int, best: float | None) -> float | None:
        """Score the averaged weights, keep them if they are the best, and draw."""
        self.watch.read(done, self.world)
        network, task = self.step.network, self.task
        with self._averaged():
            results = self.world.gather(task.validate(network, self.world.rank, self.world.size))
            figures, images = task.summarise(results)
            score = figures["score"]
            better = math.isfinite(score) and (
                best is None or (score > best if task.higher_is_better else score < best)
            )
            best = score if better else best
            if self.tracker is not None:
                scores = ", ".join(f"{k} {v:.4f}" for k, v in figures.items() if k != "score")
                logger.info("step %d: validation %s", done, scores)
                self.tracker.validation(done, figures, images)
                if better:
                    self.run.save_best(network, self._state(done, best))
                for picture in task.draw(network, done, results if better else None):
                    self.tracker.picture(done, picture)
                draw_curves(self.run)
        self._restart_clock(done)
        return best

    def save(self, done: int, best: float | None) -> None:
        """Write the checkpoint that the run can go on from."""
        self.watch.read(done, self.world)
        if self.tracker is not None:
            step = self.step
            self.tracker.flush()
            self.run.save_latest(
                step.network, step.average, step.optimiser, self._state(done, best)
            )
        self.saved = time.monotonic()

    def keep(self, done: int, best: float | None) -> None:
        """Write a checkpoint that stays."""
        self.watch.read(done, self.world)
        if self.tracker is not None:
            with self._averaged():
                self.run.keep(self.step.network, self._state(done, best))

    def tell(self, done: int, best: float | None) -> None:
        """Call the user's function with the lines of this step; where it raises, save first."""
        if self.tracker is None:
            return
        try:
            self.tracker.tell()
        except Exception as error:
            self.save(done, best)
            error.add_note(
                f"raised by on_log at step {done} of {self.run.path}, which is saved: resume=True"
                " (--resume) goes on from there"
            )
            raise

    def _state(self, done: int, best: float | None) -> RunState:
        watch, machine = self.watch, _made_with(self.step)
        return RunState(done, best, tuple(watch.losses), tuple(watch.norms), watch.first, machine)

    def _restart_clock(self, done: int) -> None:
        """Leave validation out of the speed, which is that of training alone."""
        self.started, self.first_step = time.monotonic(), done

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        network = self.step.network
        network.eval()
        with (
            self.step.average.in_place(),
            torch.no_grad(),
            self.step.autocast,
        ):
            yield
        network.train()


def restore(step: TrainingStep, watch: LossWatch, run: RunFolder) -> tuple[int, float | None]:
    """Step and best score of ``run``, all of whose state is put in place."""
    if not run.latest.exists():
        return 0, None
    checkpoint = read_checkpoint(run.latest)
    state = checkpoint.state
    load_initial_weights(step.network, checkpoint.weights, origin=run.latest, head=True)
    _require_fit(step, checkpoint, run.latest)
    step.load_optimiser(checkpoint.optimiser)
    step.average.load(checkpoint.average, checkpoint.start)
    watch.losses, watch.norms, watch.first = [*state.losses], [*state.norms], state.first_loss
    machine = _made_with(step)
    if state.made_with != machine:
        logger.info(
            "%s: made with %s, now %s: results will differ by rounding",
            run.latest,
            state.made_with,
            machine,
        )
    return state.step, state.best


def _require_fit(step: TrainingStep, checkpoint: Checkpoint, path: Path) -> None:
    """Raise ModelError unless average and optimiser of a checkpoint are those of the network."""
    own = dict(learning_parameters(step.network))
    wanted = {f"average {name}": own[name].shape for name in step.average.values}
    wanted |= {f"start {name}": own[name].shape for name in step.average.start}
    found = {f"average {name}": value for name, value in checkpoint.average.items()}
    found |= {f"start {name}": value for name, value in checkpoint.start.items()}
    for number, parameter in enumerate(own.values()):
        wanted |= {f"{number} {name}": parameter.shape for name in MOMENTS}
        wanted[f"{number} step"] = torch.Size()
    for number, state in checkpoint.optimiser.items():
        found |= {f"{number} {name}": value for name, value in state.items()}
    fits = {key: value.shape for key, value in found.items()} == wanted
    if not fits or not all(map(all_finite, found.values())):
        raise ModelError(
            f"{path}: damaged: what it holds of average and optimiser is not of this run: restore"
            f" it, or begin another run with --init {path.parent}"
        )


def _made_with(step: TrainingStep) -> str:
    return (
        f"torch {torch.__version__}, {step.device.type} in {step.precision},"
        f" {counted(torch.get_num_threads(), 'thread')}, {counted(step.world.size, 'process')}"
    )
