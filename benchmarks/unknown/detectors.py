"""What might tell artefacts from tissue: the error of a stage-1 network, plain statistics, both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from genselfdiff.diffusion import NoiseSchedule
from genselfdiff.kernels import add_noise
from genselfdiff.training.networks import noise_predictor
from genselfdiff.training.run_folder import RunFolder, read_checkpoint
from genselfdiff.training.settings.stage_configs import PretrainConfig
from genselfdiff.unknown.cell_statistics import STATISTICS, cell_statistics
from genselfdiff.unknown.known_tissue import KnownTissue

Uint8 = NDArray[np.uint8]
Float = NDArray[np.floating]

TIMES = (20, 60, 120, 250, 450)
"""Time steps of the 1,000 of the quadratic schedule: from hardly any noise to little else."""

EXPLAINED_BY = ("haematoxylin", "eosin", "spread of haematoxylin", "gradients", "gradients, 2 px")
"""What the expected error of a cell is computed from: how dark and how textured it is."""


class NetworkError:
    """Squared error of the predicted noise of a run of stage 1, at ``TIMES``."""

    def __init__(self, run: Path, batch: int = 4) -> None:
        folder = RunFolder(run)
        config = PretrainConfig.read(folder.config)
        self._network = noise_predictor(config)
        self._network.load_state_dict(read_checkpoint(folder.best).weights)
        self._network.eval().to(memory_format=torch.channels_last)
        self._alpha_bars = NoiseSchedule.create(config.schedule, config.timesteps).alpha_bars
        self._batch = batch

    @torch.inference_mode()
    def __call__(self, tiles: Sequence[Uint8], first: int) -> Float:
        """(n, times, h, w) float32 of tiles; ``first`` numbers their noise."""
        errors = np.empty((len(tiles), len(TIMES), *tiles[0].shape[:2]), np.float32)
        pixels = torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2)
        for begin in range(0, len(tiles), self._batch):
            part = pixels[begin : begin + self._batch]
            for index, time in enumerate(TIMES):
                t = torch.full((len(part),), time)
                noisy, noise = add_noise(
                    part, t, self._alpha_bars, seed=index, offset=first + begin
                )
                noisy = noisy.contiguous(memory_format=torch.channels_last)
                predicted = self._network(noisy, t).float()
                errors[begin : begin + len(part), index] = (predicted - noise).square().mean(1)
        return errors


@dataclass(frozen=True)
class Cells:
    """The cells of some tiles.

    Attributes:
        errors: (n, times) logarithms of the network's mean squared errors.
        statistics: (n, statistics).
        halved: the same of cells seen at half the resolution.
    """

    errors: Float
    statistics: Float
    halved: Float

    @classmethod
    def of(cls, tiles: Sequence[Uint8], errors: Float, side: int) -> "Cells":
        """Cut tiles and their errors into cells of ``side`` pixels."""
        halves = [_halved(tile) for tile in tiles]
        return cls(
            np.log(_means(errors, side)), _statistics(tiles, side), _statistics(halves, side // 2)
        )


def _statistics(tiles: Sequence[Uint8], side: int) -> Float:
    each = [cell_statistics(tile, side).reshape(-1, len(STATISTICS)) for tile in tiles]
    return np.concatenate(each)


def _halved(tile: Uint8) -> Uint8:
    height, width = tile.shape[:2]
    squares = tile.reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3))
    return np.rint(squares).astype(np.uint8)


def _means(errors: Float, side: int) -> Float:
    """(n, times, h, w) to means of cells (cells, times)."""
    count, times, height, width = errors.shape
    cut = errors.reshape(count, times, height // side, side, width // side, side).mean((3, 5))
    return cut.transpose(0, 2, 3, 1).reshape(-1, times)


Score = Callable[[Cells], Float]


def fitted_detectors(
    known: Cells, images: NDArray[np.integer]
) -> tuple[dict[str, Score], dict[str, float]]:
    """Scores that are the higher the less cells are like the known, of which ``images`` are.

    Beside them, of some the limit that 1 % of known cells are beyond, seen from other images.
    """
    unexplained = _Residuals(known)

    def both(cells: Cells) -> Float:
        return np.concatenate((cells.statistics, unexplained(cells)), axis=1)

    numbers: dict[str, Callable[[Cells], Float]] = {
        "network: errors": lambda cells: cells.errors,
        "network: unexpected errors": unexplained,
        "statistics": lambda cells: cells.statistics,
        "statistics at half the resolution": lambda cells: cells.halved,
        "both": both,
    }
    limits: dict[str, float] = {}
    detectors: dict[str, Score] = {
        "network: mean error": lambda cells: cells.errors.mean(1),
        "network: mean unexpected error": lambda cells: unexplained(cells).mean(1),
    }
    for name, of in numbers.items():
        values = of(known)
        by_image = [values[images == image] for image in np.unique(images)]
        tissue = KnownTissue.of(by_image, 1.0, 0)
        limits[f"{name}, neighbours"] = tissue.limit
        detectors[f"{name}, neighbours"] = partial(_score, of, tissue.distances)
        detectors[f"{name}, Mahalanobis"] = partial(_score, of, partial(_from_mean, tissue))
    return detectors, limits


def _score(of: Callable[[Cells], Float], distance: Callable[[Float], Float], cells: Cells) -> Float:
    return distance(of(cells))


def _from_mean(known: KnownTissue, values: Float) -> Float:
    """Mahalanobis distance to the mean of the known."""
    return np.linalg.norm(known.whitened(values), axis=1)


class _Residuals:
    """Logarithms of errors without what a linear model of ``EXPLAINED_BY`` expects."""

    def __init__(self, known: Cells) -> None:
        self._columns = [STATISTICS.index(name) for name in EXPLAINED_BY]
        self._weights = np.linalg.lstsq(self._design(known), known.errors, rcond=None)[0]

    def __call__(self, cells: Cells) -> Float:
        return cells.errors - self._design(cells) @ self._weights

    def _design(self, cells: Cells) -> Float:
        chosen = cells.statistics[:, self._columns]
        return np.concatenate((chosen, chosen**2, np.ones((len(chosen), 1))), axis=1)
