"""Noise and P2 loss, one thread, against the plain formulas in eager torch.

Run with ``pytest benchmarks/test_noise.py``; times are process CPU time.
"""

import time
from collections.abc import Callable, Iterator

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from genselfdiff.kernels import add_noise, native, p2_loss
from genselfdiff.kernels.add_noise.reference import standard_normal

SHAPE = (8, 3, 256, 256)
ALPHA_BARS = torch.linspace(0.9999, 0.0001, 1000, dtype=torch.float64)
STEPS = torch.arange(8) * 125

pytestmark = [
    pytest.mark.benchmark(timer=time.process_time, warmup=True, min_rounds=50),
    pytest.mark.skipif(not native.available(), reason="no native kernels installed"),
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def broadcast(values: torch.Tensor) -> torch.Tensor:
    return values.float().reshape(-1, 1, 1, 1)


def eager_noise(tiles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    noise = torch.randn(SHAPE)
    power = ALPHA_BARS[STEPS]
    clean = tiles.float() / 127.5 - 1.0
    return broadcast(power.sqrt()) * clean + broadcast((1 - power).sqrt()) * noise, noise


def our_noise(tiles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return add_noise(tiles, STEPS, ALPHA_BARS, seed=1)


@pytest.mark.parametrize("function", [eager_noise, our_noise])
def test_noise(
    benchmark: BenchmarkFixture,
    function: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
) -> None:
    tiles = torch.randint(0, 256, SHAPE, dtype=torch.uint8)
    _, noise = benchmark(function, tiles)
    # A time counts only for the right numbers.
    if function is our_noise:
        wanted = standard_normal(noise.shape, seed=1, offset=0, device=noise.device)
        assert (noise - wanted).abs().max() < 1e-6
    assert abs(noise.std() - 1) < 0.01


def eager_loss(pred: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    weights = (1 - ALPHA_BARS[STEPS]).float()
    return ((pred - noise).square().mean(dim=(1, 2, 3)) * weights).mean()


def our_loss(pred: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    return p2_loss(pred, noise, STEPS, 1 - ALPHA_BARS)


@pytest.mark.parametrize("function", [eager_loss, our_loss])
def test_p2_loss_forward_and_backward(
    benchmark: BenchmarkFixture, function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> None:
    pred, noise = torch.randn(SHAPE).requires_grad_(), torch.randn(SHAPE)

    def forward_and_backward() -> torch.Tensor:
        (grad,) = torch.autograd.grad(function(pred, noise), pred)
        return grad

    grad = benchmark(forward_and_backward)
    (wanted,) = torch.autograd.grad(eager_loss(pred, noise), pred)
    torch.testing.assert_close(grad, wanted, rtol=1e-5, atol=1e-12)
