"""What is validated and exported: an average of the weights over the steps, and with the start."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

RAMP = 10
"""Steps from which on the average is long: until then its decay is (1 + n) / (10 + n)."""


def learning_parameters(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and parameters of what is not frozen."""
    return ((name, value) for name, value in network.named_parameters() if value.requires_grad)


class WeightAverage:
    """Exponential moving average (EMA) of a network's parameters, mixed with those of its start.

    After n updates the decay is min(``decay``, (1 + n) / (10 + n)), so that the average does not
    stick to the first weights (as in TensorFlow's ExponentialMovingAverage). Decay 0 keeps none.

    Of the mean that `in_place` gives, ``start_share`` are the weights that the network has now:
    fine-tuned on few images, it forgets less of what it knew (Wortsman et al., CVPR 2022).

    Attributes:
        values: the average by the parameters' names; empty with decay 0.
        start: the weights of the start; empty with share 0.
    """

    def __init__(self, network: nn.Module, decay: float, start_share: float = 0.0) -> None:
        self.decay = decay
        self.start_share = start_share
        self._parameters = dict(learning_parameters(network))
        self.values = {
            name: parameter.detach().clone()
            for name, parameter in self._parameters.items()
            if decay
        }
        self.start = {
            name: parameter.detach().clone()
            for name, parameter in self._parameters.items()
            if start_share
        }

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Take the weights in, after ``updates`` earlier updates."""
        if not self.decay:
            return
        decay = min(self.decay, (1 + updates) / (RAMP + updates))
        weights = [self._parameters[name].detach() for name in self.values]
        torch._foreach_lerp_(list(self.values.values()), weights, 1 - decay)

    def load(self, values: dict[str, torch.Tensor], start: dict[str, torch.Tensor]) -> None:
        """Go on from ``values``, and what the run began with."""
        for name, value in self.values.items():
            value.copy_(values[name])
        for name, value in self.start.items():
            value.copy_(start[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The network has the averaged weights in the block, and its own again after it."""
        own = {name: parameter.data for name, parameter in self._parameters.items()}
        averaged = self.values or own
        if self.start:
            averaged = {
                name: value.lerp(self.start[name], self.start_share)
                for name, value in averaged.items()
            }
        for name, value in averaged.items():
            self._parameters[name].data = value
        try:
            yield
        finally:
            for name, value in own.items():
                self._parameters[name].data = value
