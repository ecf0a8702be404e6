"""Starting, resuming and estimating a run of either stage."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch

from genselfdiff.errors import InputError, is_out_of_memory
from genselfdiff.text import counted
from genselfdiff.training.dry_run import RunEstimate, estimate_run
from genselfdiff.training.finetuning import FinetuneTask
from genselfdiff.training.initial_weights import start_weights
from genselfdiff.training.loop.distributed import World, joined_world
from genselfdiff.training.loop.step import TrainingStep
from genselfdiff.training.loop.tracking import OnLog, require_tensorboard
from genselfdiff.training.loop.train import train
from genselfdiff.training.pretraining import PretrainTask
from genselfdiff.training.run_folder import RunFolder
from genselfdiff.training.settings.completing import complete_finetune, complete_pretrain
from genselfdiff.training.settings.run_config import RunConfig
from genselfdiff.training.settings.stage_configs import FinetuneConfig, PretrainConfig

logger = logging.getLogger("genselfdiff")

Config = TypeVar("Config", bound=RunConfig)

_STAGES: dict[type[RunConfig], tuple[Callable[..., Any], Callable[..., Any]]] = {
    PretrainConfig: (complete_pretrain, PretrainTask),
    FinetuneConfig: (complete_finetune, FinetuneTask),
}
"""By the type of their settings: what completes these, and the task."""


def pretrain(
    config: PretrainConfig,
    out: str | Path,
    *,
    resume: bool = False,
    progress: bool | None = None,
    on_log: OnLog | None = None,
) -> RunFolder:
    """Train a noise predictor (stage 1) into the run folder ``out``.

    With ``resume`` the run goes on from its last checkpoint; ``config`` must be the one in its
    folder (`PretrainConfig.read`); only device, workers, tensorboard, on_error and the number of
    steps may differ. Under torchrun the processes work together on each batch.

    Args:
        config: the settings.
        out: the folder.
        resume: go on.
        progress: show a bar; None: on a terminal only.
        on_log: called with the figures of each line of ``metrics.jsonl``, as floats by name:
            "step", and "training/loss" and others or "validation/score" and others. What it raises
            ends the run, whose step under way is saved first. A resumed run tells again what came
            after its checkpoint; of several processes the first calls it.

    Raises:
        InputError: the data or a setting cannot be used.
        ModelError: ``config.init`` cannot be used.
        OutputError: ``out`` exists, or cannot be written.
        TrainingError: the loss diverged, or another process of the run has ended.
    """
    return _run(config, out, resume, progress, on_log)


def finetune(
    config: FinetuneConfig,
    out: str | Path,
    *,
    resume: bool = False,
    progress: bool | None = None,
    on_log: OnLog | None = None,
) -> RunFolder:
    """Train a segmenter (stage 2) into the run folder ``out``.

    What ``config`` leaves open is taken from the run ``config.init`` (architecture, width,
    resolution) and from the files (classes, foreground, split); the folder keeps the result.
    Everything else as for `pretrain`.
    """
    return _run(config, out, resume, progress, on_log)


def estimate(config: RunConfig, *, progress: bool | None = None) -> RunEstimate:
    """Take a few steps of a run and tell what all of it would take; nothing is written.

    Raises:
        InputError, ModelError: as by `pretrain` and `finetune`.
    """
    with prepared(config) as (task, step):
        return estimate_run(task, step, progress=progress)


@contextmanager
def prepared(config: RunConfig) -> Iterator[tuple[Any, TrainingStep]]:
    """The task of a run, and a network that is ready for its first step; nothing is written.

    Raises:
        InputError, ModelError: as by `pretrain` and `finetune`.
    """
    with joined_world(config.device) as (world, device), _too_little_memory(config, device):
        yield _start(_completed(config), RunFolder("not written"), device, world, fresh=True)


def _run(
    config: Config, out: str | Path, resume: bool, progress: bool | None, on_log: OnLog | None
) -> RunFolder:
    run = RunFolder(out)
    with joined_world(config.device) as (world, device), _too_little_memory(config, device):
        if not resume:
            if world.is_first:
                run.require_absent()
            config = _completed(config)
        task, step = _start(config, run, device, world, fresh=not run.latest.exists())
        with run.opened() if world.is_first else nullcontext():
            if world.is_first and not resume:  # another run may have come and gone meanwhile
                run.require_absent()
            best = train(task, step, run, progress=progress, on_log=on_log)
        if world.is_first:
            logger.info("best %s %.4f; checkpoints in %s", task.score_name, best, run.path)
    return run


@contextmanager
def _too_little_memory(config: RunConfig, device: torch.device) -> Iterator[None]:
    """Tell what to do where the block asks for more memory than there is.

    Raises:
        InputError: it does.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(
            f"{device} has too little memory for {counted(config.batch_size, 'tile')} a step: start"
            " anew with --accumulate, or a smaller --batch-size, --tile-size or --width"
        ) from error


def _completed(config: Config) -> Config:
    return _STAGES[type(config)][0](config)


def _start(
    config: RunConfig, run: RunFolder, device: torch.device, world: World, *, fresh: bool
) -> tuple[Any, TrainingStep]:
    """With ``fresh``, initial weights are loaded; else they come from a checkpoint later."""
    _require_shares(config, world)
    if config.tensorboard:
        require_tensorboard()
    task = _STAGES[type(config)][1](config, run)
    torch.manual_seed(config.seed)
    network = task.create_network()
    if fresh:
        start_weights(network, config)
    return task, TrainingStep(task, network, config, device, world)


def _require_shares(config: RunConfig, world: World) -> None:
    """Raise InputError unless every process gets as many tiles, and each of its parts."""
    if config.batch_size % (world.size * config.accumulate):
        raise InputError(
            f"batch_size {config.batch_size} cannot be shared by {world.size} processes in"
            f" {config.accumulate} equal parts each: it counts the tiles of all of them: give a"
            f" multiple of {world.size * config.accumulate}"
        )
