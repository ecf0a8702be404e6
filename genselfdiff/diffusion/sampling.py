"""Drawing images from a trained noise predictor."""

from collections.abc import Callable

import torch

from genselfdiff.diffusion.schedule import NoiseSchedule
from genselfdiff.errors import InputError

NoisePredictor = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@torch.no_grad()
def sample_ddim(
    predict: NoisePredictor,
    schedule: NoiseSchedule,
    noise: torch.Tensor,
    steps: int = 50,
    *,
    start: int | None = None,
) -> torch.Tensor:
    """Deterministic sampling in few steps (Song, Meng and Ermon 2021, eta = 0).

    Args:
        predict: (x_t, t) to the noise in x_t; t is (N,) int64.
        schedule: the forward process that ``predict`` was trained with.
        noise: (N, 3, H, W) float32, where the images start: standard normal, or x_start of images.
        steps: calls of ``predict``; at most T.
        start: time step of ``noise``; None: T - 1.

    Returns:
        (N, 3, H, W) float32 in [-1, 1].

    Raises:
        InputError: ``steps`` out of range.
    """
    start = _checked_start(schedule, start)
    if not 1 <= steps <= schedule.timesteps:
        raise InputError(f"{steps} sampling steps: use 1 to {schedule.timesteps}")
    times = torch.linspace(start, 0, min(steps, start + 1), dtype=torch.float64).round().long()
    x = noise
    for index, t in enumerate(times.tolist()):
        alpha_bar = schedule.alpha_bars[t].item()
        following = schedule.alpha_bars[times[index + 1]].item() if index + 1 < len(times) else 1.0
        origin, predicted = _origin_and_noise(predict, x, t, alpha_bar)
        x = following**0.5 * origin + (1 - following) ** 0.5 * predicted
    return x


@torch.no_grad()
def sample_ancestral(
    predict: NoisePredictor,
    schedule: NoiseSchedule,
    noise: torch.Tensor,
    generator: torch.Generator,
    *,
    start: int | None = None,
) -> torch.Tensor:
    """The reverse process in all steps from ``start`` on (Ho, Jain and Abbeel 2020, algorithm 2).

    Arguments and result as for `sample_ddim`; ``generator`` draws the noise of each step.
    """
    x = noise
    for t in range(_checked_start(schedule, start), -1, -1):
        alpha_bar = schedule.alpha_bars[t].item()
        beta = schedule.betas[t].item()
        before = schedule.alpha_bars[t - 1].item() if t else 1.0
        origin, _ = _origin_and_noise(predict, x, t, alpha_bar)
        x = (before**0.5 * beta * origin + (1 - beta) ** 0.5 * (1 - before) * x) / (1 - alpha_bar)
        if t:
            deviation = schedule.posterior_variance[t].item() ** 0.5
            fresh = torch.randn(x.shape, generator=generator, device=generator.device)
            x = x + deviation * fresh.to(x.device)
    return x.clamp(-1, 1)


def _checked_start(schedule: NoiseSchedule, start: int | None) -> int:
    last = schedule.timesteps - 1
    if start is not None and not 0 <= start <= last:
        raise InputError(f"time step {start}: use 0 to {last}")
    return last if start is None else start


def _origin_and_noise(
    predict: NoisePredictor, x: torch.Tensor, t: int, alpha_bar: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Predicted x_0, held to the range of images, and the noise that then explains ``x``."""
    times = torch.full((len(x),), t, dtype=torch.int64, device=x.device)
    predicted = predict(x, times).float()
    origin = (x - (1 - alpha_bar) ** 0.5 * predicted) / alpha_bar**0.5
    origin = origin.clamp(-1, 1)
    return origin, (x - alpha_bar**0.5 * origin) / (1 - alpha_bar) ** 0.5
