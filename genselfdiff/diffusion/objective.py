"""What stage 1 minimises: the weighted error of the predicted noise."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from genselfdiff.diffusion.schedule import DeviceTable, NoiseSchedule
from genselfdiff.kernels import add_noise

WeightedError = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

TIMESTEP_STREAM = 1
"""Keeps the draw of t apart from that of the tiles, which share the seed: it is the last word of
the generator's seed, where a zero would make no difference."""


class NoisePrediction:
    """The loss of one batch of tiles.

    Time step and noise of a tile depend on ``seed`` and its number in the run alone, not on batch
    size, rank or thread count, so that a resumed run goes on with the same ones.

    Args:
        schedule: the forward process.
        loss: (predicted, true noise, t) to a scalar: a `P2Loss`.
        seed: of time steps and noise.
    """

    def __init__(self, schedule: NoiseSchedule, loss: WeightedError, seed: int) -> None:
        self.schedule = schedule
        self._alpha_bars = DeviceTable(schedule.alpha_bars)
        self.loss = loss
        self.seed = seed

    def draw_timesteps(self, first: int, count: int) -> torch.Tensor:
        """(count,) int64, uniform over 0..T-1, of the tiles numbered from ``first``."""
        steps = [
            np.random.default_rng((self.seed, number, TIMESTEP_STREAM)).integers(
                self.schedule.timesteps
            )
            for number in range(first, first + count)
        ]
        return torch.tensor(steps, dtype=torch.int64)

    def stratified_timesteps(self, count: int) -> torch.Tensor:
        """(count,) int64 spread evenly over 0..T-1: for validation, where chance only disturbs."""
        return ((torch.arange(count) + 0.5) * self.schedule.timesteps / count).long()

    def __call__(
        self, network: nn.Module, tiles: torch.Tensor, t: torch.Tensor, first: int
    ) -> torch.Tensor:
        """Loss of ``tiles`` (N, 3, H, W) uint8 at steps ``t`` (N,); ``first`` numbers the noise.

        Both are on the device that the network is on.
        """
        alpha_bars = self._alpha_bars.on(tiles.device)
        noisy, noise = add_noise(tiles, t, alpha_bars, seed=self.seed, offset=first)
        predicted = network(noisy.contiguous(memory_format=torch.channels_last), t)
        return self.loss(predicted.float(), noise, t)
