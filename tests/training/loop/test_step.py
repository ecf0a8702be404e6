"""One optimiser step against the same thing written out in plain torch."""

import dataclasses
import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from genselfdiff.training.loop.averaging import WeightAverage
from genselfdiff.training.loop.distributed import World
from genselfdiff.training.loop.step import TrainingStep, learning_rate
from genselfdiff.training.settings.run_config import RunConfig

CPU = torch.device("cpu")
CONFIG = RunConfig(
    batch_size=4, steps=10, learning_rate=0.1, precision="float32", clip_norm=0.0, ema=0.0
)


class MeanSquare:
    """Mean squared output, which takes numbers of samples into account."""

    def loss(self, network, batch, first):
        weights = torch.arange(first + 1, first + 1 + len(batch)).view(-1, 1, 1, 1)
        return (network(batch) ** 2 * weights).mean()


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.Conv2d(5, 2, 3, stride=2))


def tiles(count=4):
    return torch.randn(count, 3, 9, 9, generator=torch.Generator().manual_seed(1))


def stepped(config, steps=3):
    step = TrainingStep(MeanSquare(), network(), config, CPU, World())
    figures = [step(tiles(), number) for number in range(steps)]
    return step, figures


def test_steps_are_those_of_plain_adam():
    config = dataclasses.replace(CONFIG, beta1=0.5, clip_norm=0.7, warm_up=0.2)
    step, figures = stepped(config)
    plain = network()  # contiguous, where ours is channels_last
    optimiser = torch.optim.Adam(plain.parameters(), betas=(0.5, 0.999), foreach=False)
    for number in range(3):
        optimiser.param_groups[0]["lr"] = learning_rate(config, number)
        optimiser.zero_grad()
        loss = MeanSquare().loss(plain, tiles(), 4 * number)
        loss.backward()
        norm = math.sqrt(sum(p.grad.square().sum().item() for p in plain.parameters()))
        for p in plain.parameters():
            p.grad *= min(1.0, 0.7 / norm)
        optimiser.step()
        assert figures[number].tolist() == pytest.approx([loss.item(), norm], rel=1e-5)
    for ours, theirs in zip(step.network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_batch_in_parts_is_the_whole_batch():
    (whole, wholes), (parts, partwise) = (
        stepped(CONFIG),
        stepped(dataclasses.replace(CONFIG, accumulate=4)),
    )
    for a, b in zip(whole.network.parameters(), parts.network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.stack(wholes), torch.stack(partwise), rtol=1e-5, atol=1e-6)


def test_learning_rate_warms_up_and_falls():
    config = dataclasses.replace(CONFIG, steps=100, warm_up=0.1)
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.01 * k for k in range(1, 11)])
    assert rates[10] == 0.1
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert 0 < rates[-1] < 1e-4
    flat = dataclasses.replace(config, warm_up=0.0, decay="none")
    assert {learning_rate(flat, step) for step in range(100)} == {0.1}


def test_the_average_of_the_weights():
    net = nn.Linear(1, 1, bias=False)
    average = WeightAverage(net, 0.5)
    expected = net.weight.item()
    for updates, value in enumerate([3.0, -1.0, 2.0, 8.0, 5.0, 5.0, 1.0, 0.0, 4.0]):
        with torch.no_grad():
            net.weight.fill_(value)
        average.update(updates)
        decay = min(0.5, (1 + updates) / (10 + updates))
        expected = decay * expected + (1 - decay) * value
    assert decay == 0.5, "the end of the ramp is part of the test"
    with average.in_place():
        assert net.weight.item() == pytest.approx(expected)
    assert net.weight.item() == 4.0


def test_without_a_decay_there_is_no_average():
    net = nn.Linear(1, 1)
    average = WeightAverage(net, 0.0)
    average.update(0)
    assert not average.values
    weight = net.weight.item()
    with average.in_place():
        assert net.weight.item() == weight


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_a_share_of_the_start_is_in_the_average_alone(decay):
    net = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        net.weight.fill_(3.0)
        average = WeightAverage(net, decay, 0.25)
        net.weight.fill_(7.0)
    average.update(1000)
    mean = 0.5 * 3.0 + 0.5 * 7.0 if decay else 7.0
    with average.in_place():
        assert net.weight.item() == 0.25 * 3.0 + 0.75 * mean
    assert net.weight.item() == 7.0
