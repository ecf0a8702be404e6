"""Weights of an exported model's convolutions, laid out as their kernel reads them."""

from typing import Any

import torch
from torch import nn

from genselfdiff.kernels.conv3x3.op import packed_weights
from genselfdiff.models.export import PackedConv3x3


def pack_weights(module: nn.Module) -> None:
    """Pack the weights of all 3x3 convolutions, where ours is the faster one for their dtype.

    They take four times the memory of the weights, beside these. To be called again when these
    have changed, dtype and device included.

    Args:
        module: an exported model, compiled or not; others are left as they are.

    Raises:
        InputError: GSD_KERNELS or GSD_CPU_ISA asks for what cannot run.
        RuntimeError: a model that was not made by us has what cannot be packed.
    """
    for part in module.modules():
        name = getattr(part, "original_name", type(part).__name__)
        if name == PackedConv3x3.__name__:
            weight: Any = part.weight
            with torch.no_grad():
                part.packed = packed_weights(weight)
