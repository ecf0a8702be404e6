"""The operations that the project exists for; see each op's module for shapes and sources."""

from genselfdiff.kernels.add_noise.op import OPERATION as _ADD_NOISE
from genselfdiff.kernels.add_noise.op import add_noise
from genselfdiff.kernels.conv3x3.op import OPERATION as _CONV3X3
from genselfdiff.kernels.conv3x3.op import conv3x3
from genselfdiff.kernels.group_norm_silu.op import OPERATION as _GROUP_NORM_SILU
from genselfdiff.kernels.group_norm_silu.op import group_norm_silu
from genselfdiff.kernels.linear_attention.op import OPERATION as _LINEAR_ATTENTION
from genselfdiff.kernels.linear_attention.op import linear_attention
from genselfdiff.kernels.multi_loss.op import OPERATION as _MULTI_LOSS
from genselfdiff.kernels.multi_loss.op import (
    multi_loss,
    multi_loss_components,
    multi_loss_over_processes,
)
from genselfdiff.kernels.p2_loss.op import OPERATION as _P2_LOSS
from genselfdiff.kernels.p2_loss.op import p2_loss

# Those with an entry in torch.ops.gsd.
OPERATIONS = (_ADD_NOISE, _CONV3X3, _GROUP_NORM_SILU, _LINEAR_ATTENTION, _MULTI_LOSS, _P2_LOSS)

__all__ = [
    "OPERATIONS",
    "add_noise",
    "conv3x3",
    "group_norm_silu",
    "linear_attention",
    "multi_loss",
    "multi_loss_components",
    "multi_loss_over_processes",
    "p2_loss",
]
