"""Noticing that a run has gone wrong, before it reaches a checkpoint."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean

import torch

from genselfdiff.errors import TrainingError
from genselfdiff.training.distributed import World

DIVERGED = 10.0
"""A mean loss this many times that of the run's first line means that nothing is learnt."""

ENOUGH_LOSSES = 10
"""Between two lines, the mean of so many tells as much as that of a line."""


@dataclass
class LossWatch:
    """Collects losses and norms of gradients, unread for as long as can be.

    A GPU is not waited for at each step; ``read`` brings the figures over, and must be called
    before weights are written.

    Attributes:
        where: names the run in errors.
        names: describes the samples of a step.
        losses: by step, those not yet in a line of the metrics.
        norms: likewise.
        first: mean loss of the first line.
    """

    where: str
    names: Callable[[int], str]
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    first: float | None = None
    _unread: list[torch.Tensor] = field(default_factory=list)

    def add(self, figures: torch.Tensor) -> None:
        """Keep the (2,) loss and norm of one step."""
        self._unread.append(figures)

    def read(self, step: int, world: World) -> None:
        """Read the figures of all steps up to ``step`` (their number), as means over ``world``.

        Raises:
            TrainingError: one is infinite or not a number, or the loss has diverged.
        """
        if not self._unread:
            return
        rows = torch.stack(self._unread).tolist()
        self._unread.clear()
        losses = world.mean([loss for loss, _ in rows])
        norms = world.mean([norm for _, norm in rows])
        for number, pair in enumerate(zip(losses, norms, strict=True), step - len(rows) + 1):
            for what, value in zip(("loss", "gradient"), pair, strict=True):
                if not math.isfinite(value):
                    raise TrainingError(
                        f"{self.where}: the {what} became {value} at step {number}, with"
                        f" {self.names(number)} (no checkpoint has it): look at these,"
                        " or start anew with a lower --learning-rate or --precision float32"
                    )
        self.losses += losses
        self.norms += norms
        if len(self.losses) >= ENOUGH_LOSSES:
            self._require_no_divergence(step)

    def line(self, step: int) -> tuple[float, float]:
        """Mean loss and norm since the last line.

        Raises:
            TrainingError: the loss has grown to ten times that of the first line.
        """
        loss, norm = fmean(self.losses), fmean(self.norms)
        if self.first is None:
            self.first = loss
        self._require_no_divergence(step)
        self.losses.clear()
        self.norms.clear()
        return loss, norm

    def _require_no_divergence(self, step: int) -> None:
        loss = fmean(self.losses)
        if self.first is not None and loss > DIVERGED * self.first > 0:
            raise TrainingError(
                f"{self.where}: diverged: the loss is {loss:.4g} at step {step}, but was"
                f" {self.first:.4g} at the start (last batch: {self.names(step)}; the checkpoints"
                " are from before): start anew with a lower --learning-rate"
            )
