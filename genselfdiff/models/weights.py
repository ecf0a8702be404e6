"""Starting a network from weights made elsewhere: our runs, or the authors' checkpoints."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from genselfdiff.errors import ModelError
from genselfdiff.models.encoders.encoder_network import EncoderNetwork
from genselfdiff.models.unet import UNet
from genselfdiff.text import counted

HEAD_PREFIX = "net.final_conv."
DECODER_PREFIXES = ("net.ups.", "net.detail.")
_LAST = (f"{HEAD_PREFIX}1.weight", f"{HEAD_PREFIX}1.bias")
_MOST_UNPACKED = 10
"""Times the bytes of a file: torch does not compress, and weights hardly can be."""


@dataclass(frozen=True)
class LoadReport:
    """Which entries of the state dict were taken and which keep their fresh values."""

    loaded: tuple[str, ...]
    fresh: tuple[str, ...]

    def __str__(self) -> str:
        fresh = f"; fresh: {', '.join(_rooms(self.fresh))} ({len(self.fresh)})"
        return f"{len(self.loaded)} weight tensors loaded{fresh if self.fresh else ''}"


def load_initial_weights(
    network: nn.Module, state: Mapping[str, torch.Tensor], *, origin: str | Path, head: bool = False
) -> LoadReport:
    """Copy ``state`` into ``network``; the output head (``net.final_conv.*``) only if ``head``.

    Raises:
        ModelError: an entry is missing, unknown, of another shape, or not all finite numbers;
            nothing is copied then.
    """
    own = network.state_dict()
    wanted = [key for key in own if head or not key.startswith(HEAD_PREFIX)]
    stored = {key for key in state if head or not key.startswith(HEAD_PREFIX)}
    try:
        require_weights(
            "this architecture and width",
            {key: state[key] for key in stored},
            {key: own[key] for key in wanted},
        )
    except ModelError as error:
        raise ModelError(f"{origin}: {error}") from error
    network.load_state_dict({key: state[key] for key in wanted}, strict=False)
    return LoadReport(tuple(wanted), tuple(key for key in own if key not in wanted))


def require_weights(
    what: str, state: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]
) -> None:
    """Raise ModelError unless ``state`` has the entries of ``wanted`` and no others, all finite.

    Args:
        what: whose weights they should be, for people.
        state: what was read.
        wanted: tensors of the same shapes, which need not hold anything.
    """
    missing, unknown = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    found = [
        f"{verb} {counted(len(keys), 'tensor')} ({', '.join(keys[:2])})"
        for verb, keys in (("lack", missing), ("have beside them", unknown))
        if keys
    ]
    if found:
        raise ModelError(f"not weights of {what}: they {' and '.join(found)}")
    for key, own in wanted.items():
        if state[key].shape != own.shape:
            raise ModelError(
                f"not weights of {what}: {key} has shape {tuple(state[key].shape)} instead of"
                f" {tuple(own.shape)}"
            )
        if own.is_floating_point() and not all_finite(state[key]):
            raise ModelError(f"{key} is not all finite numbers: take another checkpoint")


def with_last_layer_of(
    network: UNet | EncoderNetwork,
    state: Mapping[str, torch.Tensor],
    channels: int,
    taken: Mapping[int, int],
) -> dict[str, torch.Tensor]:
    """``state`` with the last layer of ``network``, but for the outputs that are taken along.

    Args:
        network: which may give other outputs than that of ``state``.
        state: state dict of a network that is the same otherwise; one that is not stays as it is.
        channels: outputs of that network.
        taken: outputs of ``network`` that start as one of ``state``'s, which is the value.
    """
    rows = network.net.place**2
    own, fitted = network.state_dict(), dict(state)
    for key in _LAST:
        stored, fresh = state.get(key), own[key].clone()
        if stored is None or stored.shape != (channels * rows, *fresh.shape[1:]):
            continue
        for output, source in taken.items():
            fresh[output * rows :][:rows] = stored[source * rows :][:rows]
        fitted[key] = fresh
    return fitted


def with_decoder_of(
    network: UNet | EncoderNetwork, state: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """``state`` with the decoder of ``network``."""
    own = network.state_dict()
    # Of a network on a frozen encoder, all but that.
    prefixes = DECODER_PREFIXES if isinstance(network, UNet) else ("net.",)
    return dict(state) | {key: own[key] for key in own if key.startswith(prefixes)}


def all_finite(tensor: torch.Tensor) -> bool:
    """Whether it holds floating-point numbers, and none of them is infinite or NaN."""
    return tensor.is_floating_point() and bool(tensor.float().isfinite().all())


def read_authors_checkpoint(path: str | Path) -> dict[str, torch.Tensor]:
    """State dict of a ``.pth`` written by the authors' research code.

    Such a file is a pickled dict with ``epoch``, ``loss`` (a 0-d NumPy array) and
    ``model_state_dict``. Only NumPy's array reconstruction is admitted beside tensors, so a hostile
    pickle cannot run code.

    Raises:
        ModelError: not such a file.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    try:
        content = load_pickled_weights(path)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    state = content.get("model_state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(name, str)
        and isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and value.is_floating_point()
        for name, value in state.items()
    ):
        raise ModelError(f"{path}: holds no 'model_state_dict' with tensors of weights")
    return state


def load_pickled_weights(path: Path) -> Any:
    """What ``torch.save`` has written, if that is tensors, numbers, texts and arrays of NumPy.

    Raises:
        ModelError: it is damaged, or holds other objects, which a pickle makes by running code.
    """
    try:
        _check_size(path)
        with torch.serialization.safe_globals(_numpy_globals()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except ModelError:
        raise
    # A damaged pickle raises whatever its reader stumbles over.
    except Exception as error:
        raise ModelError("cannot be read as a PyTorch checkpoint of weights alone") from error


def _check_size(path: Path) -> None:
    """Raise ModelError if the file would unpack to much more than it holds."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > _MOST_UNPACKED * path.stat().st_size:
            raise ModelError(f"would unpack to {unpacked:,} bytes: no weights do")


def _numpy_globals() -> list[Any]:
    reconstruct: Any = np.empty(0).__reduce__()[0]
    scalar: Any = np.float64(0).__reduce__()[0]
    names: list[Any] = [
        np.ndarray,
        np.dtype,
        type(np.dtype(np.float64)),
        type(np.dtype(np.float32)),
    ]
    for function in (reconstruct, scalar):
        # NumPy 1 wrote numpy.core.multiarray, NumPy 2 writes numpy._core.multiarray.
        for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            names.append((function, f"{module}.{function.__name__}"))
    return names


def _rooms(keys: tuple[str, ...]) -> list[str]:
    return sorted({".".join(key.split(".")[:2]) for key in keys})
