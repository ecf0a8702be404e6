"""What differs between the stages, as the loop wants it."""

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils.data import Dataset


class Objective(Protocol):
    """What is minimised."""

    def loss(self, network: nn.Module, batch: Any, first: int) -> torch.Tensor:
        """Loss of a batch, already on the device, whose first sample has number ``first``."""


class Task(Objective, Protocol):
    """What differs between the stages."""

    higher_is_better: bool

    @property
    def pieces(self) -> int:
        """Pieces that held-out data is validated in."""

    @property
    def dataset(self) -> Dataset[Any]:
        """Item i is the i-th sample of the run, whoever asks."""

    @property
    def counts(self) -> dict[str, int]:
        """How much data there is on either side, by name."""

    @property
    def names(self) -> tuple[list[str], list[str]]:
        """Of the files on either side, in their order."""

    @property
    def naive_loss(self) -> float:
        """About what a network loses that knows nothing."""

    def describe(self, first: int, count: int) -> str:
        """Where the samples numbered from ``first`` come from."""

    def validate(self, network: nn.Module, rank: int, size: int) -> dict[int, Any]:
        """Results on every ``size``-th piece of held-out data from ``rank`` on, by its number."""

    def summarise(self, results: dict[int, Any]) -> tuple[dict[str, float], dict[str, float]]:
        """Figures over the results of all pieces, and the score of each image that has a name.

        "score" among the figures decides which checkpoint is the best.
        """

    def draw(self, network: nn.Module, step: int, results: dict[int, Any] | None) -> list[Path]:
        """Leave pictures in the run folder, if it is time to; ``results`` are of a new best."""
