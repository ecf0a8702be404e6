"""Stage 1: the network learns from unlabelled tiles by predicting the noise added to them."""

import logging
import os
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from genselfdiff.data import TileSource, UnlabelledTiles, open_sources, split_sources
from genselfdiff.diffusion import NoisePrediction, NoiseSchedule
from genselfdiff.errors import InputError
from genselfdiff.inference.device import choose_device
from genselfdiff.losses import P2Loss
from genselfdiff.models import create_model
from genselfdiff.training.config import PretrainConfig
from genselfdiff.training.loop import train
from genselfdiff.training.run_folder import RunFolder
from genselfdiff.training.sample import draw_samples, save_grid

logger = logging.getLogger("genselfdiff")

VALIDATION_SEED = 1
"""Added to the seed, so that validation noise is not that of training."""

SAMPLE_COUNT = 4
SAMPLE_STEPS = 25


def pretrain(
    config: PretrainConfig, out: str | Path, *, resume: bool = False, progress: bool | None = None
) -> RunFolder:
    """Train a noise predictor into the run folder ``out``.

    With ``resume`` the run goes on from its last checkpoint; ``config`` must be the one in its
    folder (`PretrainConfig.read`).

    Raises:
        InputError: the data or a setting cannot be used.
        OutputError: ``out`` exists, or cannot be written.
        TrainingError: the loss diverged.
    """
    if config.mpp is None:
        raise InputError("the resolution to train at is missing: give --mpp (0.5 suits 20x)")
    run = RunFolder(out)
    if not resume:
        run.require_absent()
    choose_device(config.device)
    config = config.with_network()
    assert config.mpp is not None and config.architecture is not None
    schedule = NoiseSchedule.create(config.schedule, config.timesteps)
    torch.manual_seed(config.seed)
    network = create_model(config.architecture, width=config.width)

    sources = open_sources(config.data, mpp=config.mpp, image_mpp=config.image_mpp)
    training, validation = split_sources(
        sources, mpp=config.mpp, tile_size=config.tile_size, seed=config.seed
    )
    shared = {source.path for source in training} & {source.path for source in validation}
    logger.info(
        "files for training: %d, for validation: %d%s",
        len(training),
        len(validation),
        " (held-out regions of the same ones)" if shared else "",
    )
    task = PretrainTask(
        config,
        schedule,
        _tiles(config, training, config.seed, config.steps * config.batch_size),
        _tiles(config, validation, config.seed + VALIDATION_SEED, config.validation_tiles),
        run,
    )
    if not resume:
        run.create()
        replace(config, data=tuple(map(os.path.abspath, config.data))).write(run.config)
    best = train(task, network, config, run, progress=progress)
    logger.info("best validation loss %.4f; checkpoints and samples in %s", best, run.path)
    return run


class PretrainTask:
    """Noise prediction as the loop wants it."""

    higher_is_better = False

    def __init__(
        self,
        config: PretrainConfig,
        schedule: NoiseSchedule,
        dataset: UnlabelledTiles,
        held_out: UnlabelledTiles,
        run: RunFolder,
    ) -> None:
        self.config = config
        self.schedule = schedule
        self.dataset = dataset
        self.held_out = held_out
        self.run = run
        loss = P2Loss(schedule, config.p2_k, config.p2_gamma)
        self.objective = NoisePrediction(schedule, loss, config.seed)
        self.held_out_objective = NoisePrediction(schedule, loss, config.seed + VALIDATION_SEED)

    def loss(self, network: nn.Module, batch: torch.Tensor, first: int) -> torch.Tensor:
        """P2-weighted error of the noise predicted for uint8 tiles (N, 3, T, T)."""
        return self.objective(
            network, batch, self.objective.draw_timesteps(first, len(batch)), first
        )

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Mean loss over fixed tiles, time steps and noise: comparable from one to the next."""
        device = next(network.parameters()).device
        count = len(self.held_out)
        times = self.objective.stratified_timesteps(count)
        total = 0.0
        for first in range(0, count, self.config.batch_size):
            last = min(first + self.config.batch_size, count)
            tiles = torch.stack([self.held_out[i] for i in range(first, last)]).to(device)
            loss = self.held_out_objective(network, tiles, times[first:last], first)
            total += loss.item() * (last - first)
        return {"score": total / count, "loss": total / count}

    def draw(self, network: nn.Module, step: int) -> None:
        """Draw a few images with DDIM into the folder of samples."""
        every = self.config.sample_every
        if not every or (step % every and step != self.config.steps):
            return
        network.eval()
        images = draw_samples(
            network,
            self.schedule,
            count=SAMPLE_COUNT,
            size=self.config.tile_size,
            steps=min(SAMPLE_STEPS, self.schedule.timesteps),
            seed=self.config.seed,
        )
        network.train()
        save_grid(images, self.run.sample_picture(step))


def _tiles(
    config: PretrainConfig, sources: list[TileSource], seed: int, length: int
) -> UnlabelledTiles:
    assert config.mpp is not None
    return UnlabelledTiles(
        sources, mpp=config.mpp, tile_size=config.tile_size, seed=seed, length=length
    )
