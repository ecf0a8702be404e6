"""Stage 1: the network learns from unlabelled tiles by predicting the noise added to them."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from genselfdiff.data.naming import name_some
from genselfdiff.data.tiles import TileSource, UnlabelledTiles, open_sources, split_sources
from genselfdiff.diffusion import NoisePrediction, NoiseSchedule
from genselfdiff.losses import P2Loss
from genselfdiff.machine import to_device
from genselfdiff.training.networks import noise_predictor
from genselfdiff.training.run_folder import RunFolder
from genselfdiff.training.sample import Sampling, draw_samples, save_grid
from genselfdiff.training.settings.stage_configs import PretrainConfig

logger = logging.getLogger("genselfdiff")

VALIDATION_SEED = 1
"""Added to the seed, so that validation noise is not that of training."""

SAMPLE_COUNT = 4
SAMPLE_STEPS = 25


class PretrainTask:
    """Noise prediction as the loop wants it.

    Args:
        config: complete, see `completing.complete_pretrain`.
        run: where pictures go.

    Attributes:
        tiles: those that are trained on.
        dataset: these with their time steps.
        held_out: the tiles that validate.
        counts: files on either side.
        names: of these files.

    Raises:
        InputError: the data cannot be used.
    """

    higher_is_better = False
    score_name = "validation loss"

    def __init__(self, config: PretrainConfig, run: RunFolder) -> None:
        assert config.mpp is not None
        self.config = config
        self.run = run
        self.schedule = NoiseSchedule.create(config.schedule, config.timesteps)
        sources = open_sources(
            config.data,
            mpp=config.mpp,
            image_mpp=config.image_mpp,
            on_error=config.on_error,
            icc=config.icc,
            written=run.path,
        )
        training, validation = split_sources(
            sources, mpp=config.mpp, tile_size=config.tile_size, seed=config.seed
        )
        self.counts = {"training files": len(training), "validation files": len(validation)}
        self.names = (
            [source.path.name for source in training],
            [source.path.name for source in validation],
        )
        shared = {source.path for source in training} & {source.path for source in validation}
        logger.info(
            "files for training: %d, for validation: %d%s",
            len(training),
            len(validation),
            " (held-out regions of the same ones)" if shared else "",
        )
        self.tiles = _tiles(config, training, config.seed, config.steps * config.batch_size)
        self.held_out = _tiles(
            config, validation, config.seed + VALIDATION_SEED, config.validation_tiles
        )
        loss = P2Loss(self.schedule, config.p2_k, config.p2_gamma)
        self.naive_loss = loss.weights.mean().item()  # the noise has variance 1
        self.objective = NoisePrediction(self.schedule, loss, config.seed)
        self.dataset = TimedTiles(self.tiles, self.objective)
        self.held_out_objective = NoisePrediction(
            self.schedule, loss, config.seed + VALIDATION_SEED
        )

    @property
    def pieces(self) -> int:
        """Batches that validate."""
        return -(-len(self.held_out) // self.config.batch_size)

    def create_network(self) -> nn.Module:
        """The network of the settings, with fresh weights."""
        return noise_predictor(self.config)

    def describe(self, first: int, count: int) -> str:
        """The numbers of the tiles and the files that they are of."""
        places = [self.tiles.place(index) for index in range(first, first + count)]
        files = list(dict.fromkeys(source.path for source, _, _ in places))
        return f"tiles {first} to {first + count - 1} of {name_some(files)}"

    def loss(
        self, network: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], first: int
    ) -> torch.Tensor:
        """P2-weighted error of the noise predicted for uint8 tiles (N, 3, T, T) at steps (N,)."""
        tiles, t = batch
        return self.objective(network, tiles, t, first)

    def validate(self, network: nn.Module, rank: int, size: int) -> dict[int, tuple[int, float]]:
        """Count and mean loss of every ``size``-th batch of fixed tiles, time steps and noise.

        Fixed, so that one checkpoint can be compared with the next.
        """
        device = next(network.parameters()).device
        count, batch = len(self.held_out), self.config.batch_size
        times = self.objective.stratified_timesteps(count)
        losses = {}
        for first in range(rank * batch, count, size * batch):
            last = min(first + batch, count)
            tiles = torch.stack([self.held_out[i] for i in range(first, last)])
            t = to_device(times[first:last], device)
            losses[first] = self.held_out_objective(network, to_device(tiles, device), t, first)
        # Read at the end: the device is not waited for while tiles are.
        return {first: (min(batch, count - first), loss.item()) for first, loss in losses.items()}

    def summarise(
        self, results: dict[int, tuple[int, float]]
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Mean loss over all tiles; tiles have no names."""
        loss = sum(count * mean for count, mean in results.values()) / len(self.held_out)
        return {"score": loss, "loss": loss}, {}

    def draw(self, network: nn.Module, step: int, results: dict[int, Any] | None) -> list[Path]:
        """Draw a few images with DDIM, at the first validation from each ``sample_every`` on."""
        every, before = self.config.sample_every, step - self.config.validate_every
        if not every or (step // every <= before // every and step != self.config.steps):
            return []
        steps = min(SAMPLE_STEPS, self.schedule.timesteps)
        sampling = Sampling(SAMPLE_COUNT, steps, self.config.seed)
        images = draw_samples(network, self.schedule, sampling, self.config.tile_size)
        path = self.run.picture(self.run.samples, f"step_{step:07d}")
        save_grid(images, path)
        return [path]


class TimedTiles(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Item i is tile i and its time step, int64 (): they reach the device together."""

    def __init__(self, tiles: UnlabelledTiles, objective: NoisePrediction) -> None:
        self._tiles = tiles
        self._objective = objective

    def __len__(self) -> int:
        return len(self._tiles)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._tiles[index], self._objective.draw_timesteps(index, 1)[0]


def _tiles(
    config: PretrainConfig, sources: list[TileSource], seed: int, length: int
) -> UnlabelledTiles:
    assert config.mpp is not None
    return UnlabelledTiles(
        sources, mpp=config.mpp, tile_size=config.tile_size, seed=seed, length=length
    )
