"""4x4 convolutions of stride 2 in plain torch: all of them, but for weights' gradients."""

import torch
import torch.nn.functional as F


def conv4x4(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, enlarge: bool
) -> torch.Tensor:
    """Plain-torch :func:`genselfdiff.kernels.conv4x4.op.conv4x4`."""
    if enlarge:
        return F.conv_transpose2d(x, weight, bias, stride=2, padding=1)
    return F.conv2d(x, weight, bias, stride=2, padding=1)


def input_gradient(
    grad_y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, enlarge: bool
) -> torch.Tensor:
    """The gradient in ``x``, of its shape."""
    return _backward(grad_y, x, weight, enlarge, 0)


def weight_gradient(small: torch.Tensor, large: torch.Tensor) -> torch.Tensor:
    """Plain-torch ``gsd::conv4x4_weight_gradient``."""
    like = large.new_empty(()).expand(small.shape[1], large.shape[1], 4, 4)
    gradient = _backward(small, large, like, False, 1)
    wide = gradient.to(torch.promote_types(large.dtype, torch.float32))
    return wide.contiguous(memory_format=torch.channels_last)


def _backward(
    grad_y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, enlarge: bool, which: int
) -> torch.Tensor:
    mask = [which == 0, which == 1, False]
    gradient: torch.Tensor = torch.ops.aten.convolution_backward(
        grad_y, x, weight, None, [2, 2], [1, 1], [1, 1], enlarge, [0, 0], 1, mask
    )[which]
    return gradient
