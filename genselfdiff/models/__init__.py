"""Networks by name, and loading the weights of others."""

from genselfdiff.models.registry import ARCHITECTURES, DEFAULT_ARCHITECTURE, create_model
from genselfdiff.models.unet import UNet
from genselfdiff.models.weights import load_initial_weights

__all__ = [
    "ARCHITECTURES",
    "DEFAULT_ARCHITECTURE",
    "UNet",
    "create_model",
    "load_initial_weights",
]
