"""The training loop of both stages."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset, default_collate
from tqdm.contrib.logging import logging_redirect_tqdm

from genselfdiff.data.reading import shared_reader
from genselfdiff.errors import InputError, TrainingError
from genselfdiff.progress import progress_bar
from genselfdiff.text import counted
from genselfdiff.training.loop.distributed import World
from genselfdiff.training.loop.health import LossWatch
from genselfdiff.training.loop.interruption import (
    outlive_the_first_signal,
    stop_request,
)
from genselfdiff.training.loop.records import Records, require_same_files, restore
from genselfdiff.training.loop.step import TrainingStep
from genselfdiff.training.loop.task import Task
from genselfdiff.training.loop.tracking import OnLog
from genselfdiff.training.run_folder import RunFolder
from genselfdiff.training.settings.run_config import RunConfig

logger = logging.getLogger("genselfdiff")

GPU_WORKERS = 4
"""Processes that prepare tiles for a GPU, unless the settings say how many; a CPU has no spare."""


def train(
    task: Task,
    step: TrainingStep,
    run: RunFolder,
    *,
    progress: bool | None = None,
    on_log: OnLog | None = None,
) -> float:
    """Run ``task`` up to the steps of its settings, from where ``run`` has got to.

    ``progress`` shows a bar; None: only on a terminal. ``on_log`` is called by the first process,
    after all files of a step are written.

    Returns:
        The best validation score.

    Raises:
        TrainingError: loss or gradient became infinite or not a number, or the loss diverged, the
            last checkpoint being untouched; or no validation score was finite.
        InputError: the run has taken more steps, or began with other files, or the device has too
            little memory.
        OutputError: a checkpoint cannot be written.
    """
    config, world, network = step.config, step.world, step.network
    watch = LossWatch(
        str(run.path),
        lambda number: task.describe((number - 1) * config.batch_size, config.batch_size),
        task.naive_loss,
    )
    done, best = restore(step, watch, run)
    least, most = world.maximum([-done, done])
    if -least != most:
        raise InputError(
            f"{run.path}: has {-least:.0f} steps for one process and {most:.0f} for another: give"
            " a folder that all of them see"
        )
    if done > config.steps:
        raise InputError(
            f"{run.path}: has taken {counted(done, 'step')} already: give --steps of more"
        )
    if done:
        require_same_files(task, run)
        logger.info("going on after step %d of %d", done, config.steps)
    if world.is_first:
        config.write(run.config)
    records = Records(task, step, run, watch, done, on_log)

    bar = progress_bar(
        batches(task.dataset, config, step, done),
        total=config.steps,
        initial=done,
        unit="step",
        progress=progress if world.is_first else False,
        dynamic_ncols=True,
    )
    network.train()
    with bar, logging_redirect_tqdm(), stop_request(repeated=world.size > 1) as stop, records:
        for batch in bar:
            watch.add(step(batch, done))
            done += 1
            last = done == config.steps
            stopped, overdue = world.maximum([stop.number is not None, records.overdue()])

            if done % config.log_every == 0 or last:
                bar.set_postfix_str(records.line(done))
            validated = done % config.validate_every == 0 or last
            if validated:
                best = records.validate(done, best)
            # Before the latest one: a resumed run would not come back to it.
            if config.keep_every and done % config.keep_every == 0:
                records.keep(done, best)
            if validated or stopped or overdue:
                records.save(done, best)
            records.tell(done, best)
            if stopped and not last:
                logger.info("stopped after step %d; --resume goes on from there", done)
                _tell_damage(world)
                world.wait()  # torchrun ends all as soon as one has ended
                stop.pass_on()
    _tell_damage(world)
    if best is None:
        raise TrainingError(
            f"{run.path}: no validation gave a finite score: start anew with a lower"
            " --learning-rate or --precision float32"
        )
    return best


def batches(
    dataset: Dataset[Any], config: RunConfig, step: TrainingStep, done: int
) -> Iterator[Any]:
    """The batches of the steps after ``done``, of each the share of this process.

    Sample i belongs to step i // batch_size, whatever the number of processes, so that together
    they see what one would: no sample twice, none left out.
    """
    share = config.batch_size // step.world.size
    workers = config.workers
    if workers is None:
        spare = (os.cpu_count() or 1) - 1
        workers = 0 if step.device.type == "cpu" else min(GPU_WORKERS, spare)
    firsts = (
        number * config.batch_size + step.world.rank * share for number in range(done, config.steps)
    )
    loader = DataLoader(
        dataset,
        batch_sampler=([*range(first, first + share)] for first in firsts),
        num_workers=workers,
        # Open files and images that are held are shared with the workers, not sent to them.
        multiprocessing_context="fork" if workers else None,
        worker_init_fn=_begin_worker,
        collate_fn=_with_damage,
        pin_memory=step.device.type == "cuda",
    )
    for batch, damage in loader:
        shared_reader.note_damage(damage)
        yield batch


def _begin_worker(number: int) -> None:
    outlive_the_first_signal()
    logger.setLevel(logging.ERROR)  # what workers find is told once, by the training process


def _with_damage(samples: list[Any]) -> tuple[Any, list[tuple[Path, str]]]:
    """A batch, and what of the slides has become glass since the last one of this worker."""
    return default_collate(samples), shared_reader.new_damage()


def _tell_damage(world: World) -> None:
    """Say how much of the slides all processes have taken for glass."""
    for damage in world.gather({world.rank: shared_reader.damage()}).values():
        shared_reader.note_damage(damage)
    for path, count in shared_reader.blank_tiles().items():
        logger.warning("%s: damaged tiles taken for glass: %d", path, count)
