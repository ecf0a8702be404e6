"""The operations under torch.func, forward mode and what else looks on at a function."""

import copy
import pickle

import pytest
import torch
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from genselfdiff.diffusion.schedule import NoiseSchedule
from genselfdiff.kernels import (
    add_noise,
    conv3x3,
    group_norm_silu,
    linear_attention,
    multi_loss,
    p2_loss,
)
from genselfdiff.losses import MultiLoss, P2Loss

TABLE = torch.linspace(0.9, 0.1, 10, dtype=torch.float64)
T = torch.tensor([1, 7])
GENERATOR = torch.Generator().manual_seed(3)


def normal(*size):
    return torch.randn(size, generator=GENERATOR)


def attention(x):
    c, hidden = x.shape[1], 32
    parameters = normal_like_once(c, hidden)
    return linear_attention(x, *parameters, 2)


def normal_like_once(c, hidden):
    generator = torch.Generator().manual_seed(5)
    sizes = [(c,), (c,), (3 * hidden, c, 1, 1), (c, hidden, 1, 1), (c,), (c,), (c,)]
    return [torch.randn(size, generator=generator) for size in sizes]


LABELS = torch.randint(0, 8, (2, 4, 4), generator=GENERATOR)
IMAGE = normal(2, 8, 4, 4).contiguous(memory_format=torch.channels_last)
OTHER = normal(2, 8, 4, 4)
WEIGHT, BIAS = normal(8), normal(8)
KERNEL = normal(8, 8, 3, 3)
FUNCTIONS = {
    "add_noise": lambda x: add_noise(x, T, TABLE, seed=1)[0].square().sum(),
    "conv3x3": lambda x: conv3x3(x, KERNEL, BIAS).square().sum(),
    "group_norm_silu": lambda x: group_norm_silu(x, WEIGHT, BIAS, 4).square().sum(),
    "linear_attention": lambda x: attention(x).square().sum(),
    "multi_loss": lambda x: multi_loss(x, LABELS),
    "p2_loss": lambda x: p2_loss(x, OTHER, T, TABLE),
}
every_function = pytest.mark.parametrize("name", FUNCTIONS)


def is_plain(backend, name):
    """Whether plain torch runs: GPUs take its convolution."""
    return backend == "reference" or (backend, name) == ("triton", "conv3x3")


@pytest.fixture
def gradient(backend, name):
    x = IMAGE.clone().requires_grad_()
    return torch.autograd.grad(FUNCTIONS[name](x), x)[0]


@every_function
def test_torch_func_gives_what_autograd_gives(backend, name, gradient):
    function = FUNCTIONS[name]
    torch.testing.assert_close(torch.func.grad(function)(IMAGE), gradient)
    value, pull_back = torch.func.vjp(function, IMAGE)
    torch.testing.assert_close(value, function(IMAGE))
    torch.testing.assert_close(pull_back(torch.tensor(2.0))[0], 2.0 * gradient)


@every_function
def test_forward_mode_is_right_or_refused(backend, name, gradient):
    function, tangent = FUNCTIONS[name], torch.ones_like(OTHER)
    # In forward mode torch's own group_norm takes no other memory format.
    x = IMAGE.contiguous() if is_plain(backend, name) else IMAGE

    def by_torch_func():
        return torch.func.jvp(function, (x,), (tangent,))[1]

    def by_dual_numbers():
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(function(forward_ad.make_dual(x, tangent))).tangent

    for derivative in (by_torch_func, by_dual_numbers):
        if backend == "reference" and name == "linear_attention":
            continue  # ... and there is no way around it: torch says so
        if is_plain(backend, name):
            torch.testing.assert_close(derivative(), gradient.sum(), rtol=1e-3, atol=1e-3)
        else:
            with pytest.raises(RuntimeError, match=f"{name} has no derivative in forward mode"):
                derivative()


@every_function
def test_second_derivatives_are_right_or_refused(backend, name):
    if name == "add_noise" or is_plain(backend, name):
        return
    function = FUNCTIONS[name]

    def slope(x):
        return torch.func.grad(function)(x).square().sum()

    for second in (
        lambda: torch.func.grad(slope)(IMAGE),
        lambda: torch.func.jvp(slope, (IMAGE,), (IMAGE,)),
    ):
        with pytest.raises(RuntimeError, match=f"{name} has no (second|derivative in forward)"):
            second()


@every_function
def test_checkpointing_gives_the_same_gradient(backend, name, gradient):
    x = IMAGE.clone().requires_grad_()
    value = checkpoint(FUNCTIONS[name], x, use_reentrant=False)
    assert torch.equal(torch.autograd.grad(value, x)[0], gradient)


def test_losses_can_be_copied_and_pickled():
    for loss, arguments in (
        (MultiLoss("pixel", class_weights=torch.ones(8)), (IMAGE, LABELS)),
        (P2Loss(NoiseSchedule.create(timesteps=10)), (IMAGE, OTHER, T)),
    ):
        for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
            assert torch.equal(other(*arguments), loss(*arguments))


@pytest.mark.parametrize("name", ["group_norm_silu", "multi_loss"])
def test_errors_begin_with_the_operation(backend, name):
    bad = {
        "group_norm_silu": lambda: group_norm_silu(IMAGE, WEIGHT, BIAS, 3),
        "multi_loss": lambda: multi_loss(OTHER, LABELS[:1]),
    }
    if backend == "reference" and name == "group_norm_silu":
        return  # these are torch's own words
    with pytest.raises(RuntimeError) as told:
        bad[name]()
    assert str(told.value).startswith(f"{name}: ")
