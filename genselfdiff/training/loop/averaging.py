"""A moving average of the weights (EMA), which scores better than the last weights themselves."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

RAMP = 10
"""Steps from which on the average is long: until then its decay is (1 + n) / (10 + n)."""


class WeightAverage:
    """Exponential moving average of a network's parameters.

    After n updates the decay is min(``decay``, (1 + n) / (10 + n)), so that the average does not
    stick to the first weights (as in TensorFlow's ExponentialMovingAverage). Decay 0 keeps none.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = dict(network.named_parameters())
        self.values = {
            name: parameter.detach().clone()
            for name, parameter in self._parameters.items()
            if decay
        }

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Take the weights in, after ``updates`` earlier updates."""
        if not self.decay:
            return
        decay = min(self.decay, (1 + updates) / (RAMP + updates))
        weights = [self._parameters[name].detach() for name in self.values]
        torch._foreach_lerp_(list(self.values.values()), weights, 1 - decay)

    def load(self, values: dict[str, torch.Tensor]) -> None:
        """Go on from ``values``."""
        for name, value in self.values.items():
            value.copy_(values[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The network has the averaged weights in the block, and its own again after it."""
        own = {name: self._parameters[name].data for name in self.values}
        for name, value in self.values.items():
            self._parameters[name].data = value
        try:
            yield
        finally:
            for name, value in own.items():
                self._parameters[name].data = value
