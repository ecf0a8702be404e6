"""The operations that the project exists for; see each op's module for shapes and sources."""

from genselfdiff.kernels.group_norm_silu.reference import group_norm_silu
from genselfdiff.kernels.linear_attention.reference import linear_attention
from genselfdiff.kernels.multi_loss.reference import multi_loss, multi_loss_components

__all__ = ["group_norm_silu", "linear_attention", "multi_loss", "multi_loss_components"]
