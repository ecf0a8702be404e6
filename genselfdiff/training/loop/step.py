"""One optimiser step: everything between a batch and the next weights."""

import math
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from genselfdiff.machine import has_fast_bfloat16, to_device
from genselfdiff.training.loop.averaging import WeightAverage, learning_parameters
from genselfdiff.training.loop.distributed import World
from genselfdiff.training.loop.task import Objective
from genselfdiff.training.settings.run_config import RunConfig

BETA2 = 0.999
MOMENTS = ("exp_avg", "exp_avg_sq")
"""What Adam keeps of each parameter, as torch names it, beside the number of steps."""

NEVER_CLIPPED = math.inf


class TrainingStep:
    """The network, its optimiser and the average of its weights, and how one batch changes them.

    The gradient is the mean over ``config.accumulate`` parts of the batch and over the processes
    of ``world``.

    Attributes:
        network: what is trained; channels_last, on ``device``.
        parameters: those of it that learn.
        optimiser: Adam, one kernel for all parameters where the device has it.
        average: moving average of the weights.
        autocast: context of the run's precision.
    """

    def __init__(
        self,
        objective: Objective,
        network: nn.Module,
        config: RunConfig,
        device: torch.device,
        world: World,
    ) -> None:
        network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.objective = objective
        self.network = network
        self.config = config
        self.device = device
        self.world = world
        self.parameters = [parameter for _, parameter in learning_parameters(network)]
        self.optimiser = torch.optim.Adam(
            self.parameters, lr=config.learning_rate, betas=(config.beta1, BETA2), fused=True
        )
        self.average = WeightAverage(network, config.ema, config.kept_start)
        self.autocast = _autocast(device, config.precision)
        self._wrapped = world.wrapped(network, device)

    @property
    def precision(self) -> str:
        """What activations are computed in: "bfloat16" or "float32"."""
        return "bfloat16" if self.autocast._enabled else "float32"

    def __call__(self, batch: Any, step: int) -> torch.Tensor:
        """Take this process' share of the batch of step ``step`` (from 0).

        Returns:
            (2,) float32 on the device: the loss and the norm of its gradient before clipping.
        """
        config = self.config
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(config, step)
        self.optimiser.zero_grad(set_to_none=True)
        share = config.batch_size // self.world.size
        part = share // config.accumulate
        first = step * config.batch_size + self.world.rank * share
        total = torch.zeros((), device=self.device)
        batch = _to(batch, self.device)
        for start in range(0, share, part):
            with self._synchronised(start + part == share):
                with self.autocast:
                    loss = self.objective.loss(
                        self._wrapped, _part(batch, start, part), first + start
                    )
                (loss / config.accumulate).backward()  # type: ignore[no-untyped-call]
            total += loss.detach() / config.accumulate
        norm = nn.utils.clip_grad_norm_(self.parameters, config.clip_norm or NEVER_CLIPPED)
        self.optimiser.step()
        self.average.update(step)
        return torch.stack((total, norm.detach().float()))

    def load_optimiser(self, state: dict[int, dict[str, torch.Tensor]]) -> None:
        """Go on with the state of the optimiser by the parameters' numbers."""
        for number, parameter in enumerate(self.parameters):
            # In the parameter's own layout, as the kernel goes through both alike.
            self.optimiser.state[parameter] = {
                name: torch.empty_like(parameter).copy_(value)
                if value.shape == parameter.shape
                else value.to(self.device)
                for name, value in state[number].items()
            }

    def _synchronised(self, last: bool) -> Any:
        """The gradients of the processes are averaged with the last part of a batch only."""
        if last or self.world.size == 1:
            return nullcontext()
        return self._wrapped.no_sync()  # type: ignore[operator]


def learning_rate(config: RunConfig, step: int) -> float:
    """Linear warm-up, then half a cosine that would reach zero one step after the last, or flat."""
    warm_up = round(config.warm_up * config.steps)
    if step < warm_up:
        return config.learning_rate * (step + 1) / warm_up
    if config.decay == "none":
        return config.learning_rate
    share = (step - warm_up) / max(1, config.steps - warm_up)
    return config.learning_rate * (1 + math.cos(math.pi * share)) / 2


def _autocast(device: torch.device, precision: str) -> torch.autocast:
    wanted = precision == "bfloat16" or (precision == "auto" and has_fast_bfloat16(device))
    # A forward pass takes each weight once; and what CUDA graphs record must not be kept.
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted, cache_enabled=False)


def _to(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, torch.Tensor):
        return to_device(batch, device)
    return tuple(to_device(part, device) for part in batch)


def _part(batch: Any, start: int, length: int) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch[start : start + length]
    return tuple(tensor[start : start + length] for tensor in batch)
