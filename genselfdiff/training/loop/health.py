"""Noticing that a run has gone wrong, before it reaches a checkpoint."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean, median_low

import torch

from genselfdiff.errors import TrainingError
from genselfdiff.training.loop.distributed import World

DIVERGED = 10.0
"""A loss this many times that of a network that has learnt nothing means that it never will."""

ENOUGH_LOSSES = 10
"""One batch may be far easier or harder than the next; of so many, the median tells."""


@dataclass
class LossWatch:
    """Collects losses and norms of gradients, unread for as long as can be.

    A GPU is not waited for at each step; ``read`` brings the figures over, and must be called
    before weights are written.

    Attributes:
        where: names the run in errors.
        names: describes the samples of a step.
        naive: about what a network loses that knows nothing: the first batches may be easy ones,
            or the network may have learnt before.
        losses: by step, those not yet in a line of the metrics.
        norms: likewise.
        first: largest loss of the first steps.
    """

    where: str
    names: Callable[[int], str]
    naive: float
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    first: float | None = None
    _unread: list[torch.Tensor] = field(default_factory=list)
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=ENOUGH_LOSSES))

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
            if number <= ENOUGH_LOSSES:
                self.first = max(pair[0], self.first or 0.0)
            for what, value in zip(("loss", "gradient"), pair, strict=True):
                if not math.isfinite(value):
                    raise TrainingError(
                        f"{self.where}: the {what} became {value} at step {number}, with"
                        f" {self.names(number)} (no checkpoint has it): look at these,"
                        " or start anew with a lower --learning-rate or --precision float32"
                    )
        self.losses += losses
        self.norms += norms
        self._recent += losses
        self._require_no_divergence(step)

    def line(self) -> tuple[float, float]:
        """Mean loss and norm since the last line."""
        loss, norm = fmean(self.losses), fmean(self.norms)
        self.losses.clear()
        self.norms.clear()
        return loss, norm

    def _require_no_divergence(self, step: int) -> None:
        loss = median_low(self._recent)
        start = max(self.naive, self.first or 0.0)
        if len(self._recent) == ENOUGH_LOSSES and loss > DIVERGED * start:
            raise TrainingError(
                f"{self.where}: diverged: the loss is {loss:.4g} at step {step}, that of a network"
                f" that has learnt nothing {start:.4g} (last batch: {self.names(step)}; the"
                " checkpoints are from before): start anew with a lower --learning-rate"
            )
