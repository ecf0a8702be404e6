"""Networks by name, loading the weights of others, and the form for export."""

from genselfdiff.models.export import for_export
from genselfdiff.models.packing import pack_weights
from genselfdiff.models.registry import architecture, create_model
from genselfdiff.models.unet import UNet
from genselfdiff.models.weights import load_initial_weights

__all__ = [
    "UNet",
    "architecture",
    "create_model",
    "for_export",
    "load_initial_weights",
    "pack_weights",
]
