"""Noise schedules: how much of the image is left at each time step."""

import math
from dataclasses import dataclass

import torch

from genselfdiff.choices import SCHEDULES
from genselfdiff.errors import InputError
from genselfdiff.kernels.checks import exact_dtype

BETA_FIRST = 1e-4
BETA_LAST = 0.02
COSINE_OFFSET = 0.008


@dataclass(frozen=True)
class NoiseSchedule:
    """The variances of the forward process, float64 (T,) each.

    Attributes:
        betas: variance of the noise added by each step.
        alpha_bars: share of the signal's variance left after each step, the running product of
            ``1 - beta``.
        posterior_variance: of x_{t-1} given x_t and x_0: beta_t (1 - abar_{t-1}) / (1 - abar_t).
    """

    betas: torch.Tensor
    alpha_bars: torch.Tensor
    posterior_variance: torch.Tensor

    @classmethod
    def create(cls, kind: str = "quadratic", timesteps: int = 1000) -> "NoiseSchedule":
        """Build the schedule called ``kind`` (one of ``SCHEDULES``) with T = ``timesteps``.

        Quadratic is that of GenSelfDiff-HIS; cosine is Nichol and Dhariwal 2021.

        Raises:
            InputError: no such schedule, or fewer than two steps.
        """
        if timesteps < 2:
            raise InputError(f"{timesteps} time steps are too few: use at least 2")
        if kind == "quadratic":
            roots = _evenly(math.sqrt(BETA_FIRST), math.sqrt(BETA_LAST), timesteps)
            betas = roots**2
        elif kind == "linear":
            betas = _evenly(BETA_FIRST, BETA_LAST, timesteps)
        elif kind == "sigmoid":
            ramp = torch.sigmoid(_evenly(-6.0, 6.0, timesteps))
            betas = BETA_FIRST + ramp * (BETA_LAST - BETA_FIRST)
        elif kind == "cosine":
            time = _evenly(0.0, 1.0, timesteps + 1)
            angle = (time + COSINE_OFFSET) / (1 + COSINE_OFFSET) * math.pi / 2
            signal = angle.cos() ** 2
            betas = (1 - signal[1:] / signal[:-1]).clamp(1e-4, 0.9999)
        else:
            raise InputError(f"no schedule {kind!r}: choose one of {', '.join(SCHEDULES)}")
        alpha_bars = (1 - betas).cumprod(0)
        before = torch.cat((torch.ones(1, dtype=torch.float64), alpha_bars[:-1]))
        return cls(betas, alpha_bars, betas * (1 - before) / (1 - alpha_bars))

    @property
    def timesteps(self) -> int:
        """T."""
        return len(self.betas)

    def p2_weights(self, k: float = 1.0, gamma: float = 1.0) -> torch.Tensor:
        """(T,) float64 weights 1 / (k + SNR_t)^gamma (Choi et al. 2022, equation 8)."""
        snr = self.alpha_bars / (1 - self.alpha_bars)
        return (k + snr) ** -gamma


class DeviceTable:
    """A table by time step, which every device that asks for it gets once.

    A table that stayed on the CPU would be copied at each step, and the GPU waited for.

    Args:
        values: float64 (T,), on the CPU.
    """

    def __init__(self, values: torch.Tensor) -> None:
        self._values = values
        self._copies: dict[torch.device, torch.Tensor] = {}

    def on(self, device: torch.device) -> torch.Tensor:
        """(T,) float64 (float32 on MPS, which has no better) on ``device``."""
        if device not in self._copies:
            self._copies[device] = self._values.to(exact_dtype(device)).to(device)
        return self._copies[device]


def _evenly(first: float, last: float, count: int) -> torch.Tensor:
    return torch.linspace(first, last, count, dtype=torch.float64)
