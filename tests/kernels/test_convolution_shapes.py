"""Convolutions of shapes that nobody has thought of, with every instruction set."""

import pytest
import torch
import torch.nn.functional as F

from genselfdiff.kernels.conv4x4 import reference as conv4x4

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed")
st = hypothesis.strategies

channels, sides = st.integers(1, 70), st.integers(1, 19)
any_shapes = hypothesis.settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],  # sets the same again
)


def normal(*size):
    tensor = torch.randn(size, generator=torch.Generator().manual_seed(7))
    return tensor.contiguous(memory_format=torch.channels_last)


def assert_near(found, exact):
    """As near as sums of products of normal numbers are, with room for Winograd's."""
    assert found.shape == exact.shape
    if exact.numel():
        assert (found - exact).norm() <= 4e-6 * exact.norm() + 1e-6


@any_shapes
@hypothesis.given(n=st.integers(0, 3), c_in=channels, c_out=channels, h=sides, w=sides)
def test_3x3(isa, n, c_in, c_out, h, w):
    x, weight, grad_y = normal(n, c_in, h, w), normal(c_out, c_in, 3, 3), normal(n, c_out, h, w)
    bias = weight[:, 0, 0, 0]
    y = torch.ops.gsd.conv3x3(x, weight, bias, None)
    grad_weight = torch.ops.gsd.conv3x3_weight_gradient(grad_y, x)
    if n == 0:
        assert y.shape == (0, c_out, h, w) and not grad_weight.any()
        return
    assert_near(y, F.conv2d(x.double(), weight.double(), bias.double(), padding=1))
    exact = torch.nn.grad.conv2d_weight(x.double(), weight.shape, grad_y.double(), padding=1)
    assert_near(grad_weight, exact)


@any_shapes
@hypothesis.given(n=st.integers(1, 3), small=channels, large=channels, h=sides, w=sides)
def test_4x4(isa, n, small, large, h, w):
    images = normal(n, small, h, w), normal(n, large, 2 * h, 2 * w)
    exact = conv4x4.weight_gradient(*(image.double() for image in images))
    assert_near(torch.ops.gsd.conv4x4_weight_gradient(*images), exact)
