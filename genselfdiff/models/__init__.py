"""Networks by name, their weights, the form for export, and the exported model as a file.

Names are loaded when they are first asked for: what a shipped model is called needs no torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genselfdiff.models.registry import create_model
    from genselfdiff.models.weights import load_initial_weights

_HOMES = {"create_model": "registry", "load_initial_weights": "weights"}

__all__ = ["create_model", "load_initial_weights"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
