"""Parameters are loaded by the GPU's kernels as they are."""

import importlib

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

SIZE = (2, 32, 5, 7)


class Casts(TorchDispatchMode):
    """Counts the tensors that change their dtype."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.count += function is torch.ops.aten._to_copy.default and result.dtype != args[0].dtype
        return result


def arguments(operation, dtype, parameters):
    """Of the forward kernels: those of x's dtype, and the parameters."""
    generator = torch.Generator().manual_seed(5)
    channels = SIZE[1]

    def normal(*size):
        return torch.randn(size, generator=generator).bfloat16()  # no other dtype rounds them

    x = normal(*SIZE).to(dtype)
    c = [normal(channels).to(parameters) for _ in range(5)]
    if operation == "group_norm_silu":
        return x, *c[:2], 4, normal(SIZE[0], channels).to(parameters), x, 1e-5
    weights = (normal(384, channels, 1, 1).to(parameters), normal(channels, 128, 1, 1))
    return x, *c[:2], weights[0], weights[1].to(parameters), *c[2:], 4, 1e-5


@pytest.mark.parametrize("operation", ["group_norm_silu", "linear_attention"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_those_of_the_dtype_of_x_are_not_cast(interpreted, operation, dtype):
    module = importlib.import_module(f"genselfdiff.kernels.{operation}.triton")
    given = arguments(operation, dtype, dtype)
    with Casts() as casts:
        module.forward(*given)
    assert casts.count == 0


@pytest.mark.parametrize("operation", ["group_norm_silu", "linear_attention"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_their_dtype_does_not_matter(interpreted, operation, dtype):
    module = importlib.import_module(f"genselfdiff.kernels.{operation}.triton")
    found = [
        module.forward(*arguments(operation, dtype, parameters))
        for parameters in (torch.float32, torch.bfloat16, torch.float64)
    ]
    for other in found[1:]:
        for name, one, two in zip(("y", *"abc"), found[0], other, strict=False):
            assert torch.equal(one, two), name
