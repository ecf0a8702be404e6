import pytest
import torch

from genselfdiff.diffusion import NoiseSchedule, sample_ancestral, sample_ddim
from genselfdiff.errors import InputError

SCHEDULE = NoiseSchedule.create("quadratic", 100)


def oracle(image):
    """The predictor that knows the only image there is."""

    def predict(x, t):
        alpha_bar = SCHEDULE.alpha_bars[t].float()[:, None, None, None]
        return (x - alpha_bar.sqrt() * image) / (1 - alpha_bar).sqrt()

    return predict


@pytest.fixture
def image():
    return torch.rand(2, 3, 8, 8) * 2 - 1


@pytest.mark.parametrize("steps", [1, 7, 100])
def test_ddim_with_a_perfect_predictor_gives_the_image(image, steps):
    drawn = sample_ddim(oracle(image), SCHEDULE, torch.randn(2, 3, 8, 8), steps)
    torch.testing.assert_close(drawn, image, rtol=0, atol=1e-4)


def test_ancestral_with_a_perfect_predictor_gives_the_image(image):
    generator = torch.Generator().manual_seed(1)
    drawn = sample_ancestral(oracle(image), SCHEDULE, torch.randn(2, 3, 8, 8), generator)
    torch.testing.assert_close(drawn, image, rtol=0, atol=1e-4)


def test_ancestral_keeps_the_marginal_distribution():
    """Images N(0, s^2) per pixel: the exact predictor must draw that distribution again."""
    spread = 0.3

    def predict(x, t):
        alpha_bar = SCHEDULE.alpha_bars[t].float()[:, None, None, None]
        variance = alpha_bar * spread**2 + 1 - alpha_bar
        return x * (1 - alpha_bar).sqrt() / variance

    generator = torch.Generator().manual_seed(2)
    start = torch.randn(16, 3, 16, 16, generator=generator)
    # The schedule leaves a little signal at T, so the start is drawn as the process ends.
    last = SCHEDULE.alpha_bars[-1].item()
    start = start * (last * spread**2 + 1 - last) ** 0.5
    drawn = sample_ancestral(predict, SCHEDULE, start, generator)
    assert abs(drawn.mean().item()) < 0.01
    # The posterior variance is exact for a single image only: a few per cent are lost.
    assert drawn.std().item() == pytest.approx(spread, rel=0.06)


def test_ddim_is_deterministic_and_refuses_impossible_steps(image):
    noise = torch.randn(2, 3, 8, 8)
    again = [sample_ddim(oracle(image), SCHEDULE, noise, 5) for _ in range(2)]
    assert torch.equal(*again)
    for steps in (0, 101):
        with pytest.raises(InputError, match="use 1 to 100"):
            sample_ddim(oracle(image), SCHEDULE, noise, steps)
