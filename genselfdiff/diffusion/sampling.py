"""Drawing images from a trained noise predictor."""

from collections.abc import Callable

import torch

from genselfdiff.diffusion.schedule import NoiseSchedule
from genselfdiff.errors import InputError

NoisePredictor = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@torch.no_grad()
def sample_ddim(
    predict: NoisePredictor, schedule: NoiseSchedule, noise: torch.Tensor, steps: int = 50
) -> torch.Tensor:
    """Deterministic sampling in few steps (Song, Meng and Ermon 2021, eta = 0).

    Args:
        predict: (x_t, t) to the noise in x_t; t is (N,) int64.
        schedule: the forward process that ``predict`` was trained with.
        noise: (N, 3, H, W) float32 standard normal, where the images start.
        steps: calls of ``predict``; at most T.

    Returns:
        (N, 3, H, W) float32 in [-1, 1].

    Raises:
        InputError: ``steps`` out of range.
    """
    if not 1 <= steps <= schedule.timesteps:
        raise InputError(f"{steps} sampling steps: use 1 to {schedule.timesteps}")
    times = torch.linspace(schedule.timesteps - 1, 0, steps, dtype=torch.float64).round().long()
    x = noise
    for index, t in enumerate(times.tolist()):
        alpha_bar = schedule.alpha_bars[t].item()
        following = schedule.alpha_bars[times[index + 1]].item() if index + 1 < steps else 1.0
        start, predicted = _start_and_noise(predict, x, t, alpha_bar)
        x = following**0.5 * start + (1 - following) ** 0.5 * predicted
    return x


@torch.no_grad()
def sample_ancestral(
    predict: NoisePredictor,
    schedule: NoiseSchedule,
    noise: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """The reverse process step by step, all T of them (Ho, Jain and Abbeel 2020, algorithm 2).

    Arguments and result as for `sample_ddim`; ``generator`` draws the noise of each step.
    """
    x = noise
    for t in range(schedule.timesteps - 1, -1, -1):
        alpha_bar = schedule.alpha_bars[t].item()
        beta = schedule.betas[t].item()
        before = schedule.alpha_bars[t - 1].item() if t else 1.0
        start, _ = _start_and_noise(predict, x, t, alpha_bar)
        x = (before**0.5 * beta * start + (1 - beta) ** 0.5 * (1 - before) * x) / (1 - alpha_bar)
        if t:
            deviation = schedule.posterior_variance[t].item() ** 0.5
            fresh = torch.randn(x.shape, generator=generator, device=generator.device)
            x = x + deviation * fresh.to(x.device)
    return x.clamp(-1, 1)


def _start_and_noise(
    predict: NoisePredictor, x: torch.Tensor, t: int, alpha_bar: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Predicted x_0, held to the range of images, and the noise that then explains ``x``."""
    times = torch.full((len(x),), t, dtype=torch.int64, device=x.device)
    predicted = predict(x, times).float()
    start = (x - (1 - alpha_bar) ** 0.5 * predicted) / alpha_bar**0.5
    start = start.clamp(-1, 1)
    return start, (x - alpha_bar**0.5 * start) / (1 - alpha_bar) ** 0.5
