"""Reading state dicts of other people's, without running what a pickle says."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_in

from genselfdiff.errors import ModelError
from genselfdiff.input_files import read_bytes
from genselfdiff.models.weights import load_pickled_weights

State = dict[str, torch.Tensor]

_KEYS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
"""Under which training programs keep a state dict among other things; Lightning's is the first."""
_PREFIXES = ("module.", "model.", "net.", "network.", "_orig_mod.")
"""Of all names, where the network was part of another module, compiled, or in DataParallel."""


def read_state_dict(path: Path) -> State:
    """The tensors of a ``.safetensors``, or of a ``.pth``, ``.pt`` or ``.ckpt`` of ``torch.save``.

    Raises:
        ModelError: there is no such file, it is damaged, holds other objects than tensors and
            numbers, or no state dict.
    """
    if not path.is_file():
        raise ModelError("there is no such file")
    if path.suffix.lower() == ".safetensors":
        try:
            return _without_prefix(tensors_in(read_bytes(path, path.stat().st_size)))
        except SafetensorError as error:
            raise ModelError(f"damaged weights: {error}") from error
    content = load_pickled_weights(path)
    candidates = [content, *(content.get(key) for key in _KEYS if isinstance(content, dict))]
    for found in candidates:
        if _is_state(found):
            return _without_prefix(found)
    raise ModelError("holds no state dict: save one, torch.save(network.state_dict(), ...)")


def _is_state(content: object) -> bool:
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(name, str) for name in content)
        and all(
            isinstance(value, torch.Tensor) and value.layout == torch.strided
            for value in content.values()
        )
    )


def _without_prefix(state: Mapping[str, torch.Tensor]) -> State:
    found = dict(state)
    while prefix := next((p for p in _PREFIXES if all(key.startswith(p) for key in found)), None):
        found = {key.removeprefix(prefix): value for key, value in found.items()}
    return found
