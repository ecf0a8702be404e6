"""Models that come with gsd, by name: a file of weights each, and a card beside it.

The weights are the whole state of a network as safetensors in float16, the time layers of stage 1
included, so that training can start from them; ``gsd.json`` in the file's header is their
``ModelInfo``. The network is compiled where it is used: a TorchScript file would be larger, and
training could not start from it. What is here is part of the installation, and as trusted.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_in
from safetensors.torch import save as as_safetensors

from genselfdiff.errors import InputError, ModelError
from genselfdiff.files import atomic_file
from genselfdiff.inference.model_archive import EXTRA_FILE
from genselfdiff.inference.model_card import ModelCard
from genselfdiff.inference.model_info import ModelInfo
from genselfdiff.input_files import parse_json, read_bytes, read_text
from genselfdiff.models import UNet, create_model, load_initial_weights
from genselfdiff.models.weights import all_finite

logger = logging.getLogger("genselfdiff")

FOLDER = Path(__file__).parents[1] / "shipped"
DEFAULT = "nuclei"
"""The model that is used where none is named."""
LARGEST = 16_000_000
"""Bytes of a file of weights: they are in the repository and in every installation."""

_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class ShippedWeights:
    """What a file of weights holds.

    Attributes:
        info: its description.
        state: state dict of the network, in float32.
        digest: tells the file from others.
    """

    info: ModelInfo
    state: Mapping[str, torch.Tensor]
    digest: str

    @property
    def parameters(self) -> int:
        """Of the network."""
        return sum(tensor.numel() for tensor in self.state.values())

    def network(self) -> UNet:
        """The network with these weights.

        Raises:
            ModelError: they are not of the architecture that ``info`` tells.
        """
        try:
            name, width = self.info.architecture["name"], self.info.architecture["width"]
            network = create_model(name, out_channels=self.info.logits, width=width)
        except (KeyError, TypeError, InputError) as error:
            raise ModelError(f"{EXTRA_FILE} tells no architecture of gsd: {error}") from error
        load_initial_weights(network, self.state, origin="weights", head=True)
        return network


def names() -> tuple[str, ...]:
    """Those that there are, in alphabetical order."""
    return tuple(sorted(path.stem for path in FOLDER.glob(f"*{_SUFFIX}")))


def name_of(model: str | Path) -> str | None:
    """``model``, if it is the name of a shipped one; a ``Path`` never is: it names a file."""
    return model if isinstance(model, str) and model in names() else None


def weights_file(name: str) -> Path:
    """Where the weights of a shipped model lie."""
    return FOLDER / f"{name}{_SUFFIX}"


def warn_of_namesake(name: str) -> None:
    """Say which of two is meant where a file or folder here has the name of a shipped model."""
    if Path(name).exists():
        logger.warning("%s: the model shipped with gsd; what is called so here is ./%s", name, name)


def read_weights(name: str) -> ShippedWeights:
    """Read the weights of a shipped model.

    Raises:
        ModelError: the file is damaged.
        InputError: it cannot be read.
    """
    content = read_bytes(weights_file(name), LARGEST)
    try:
        state = {key: tensor.float() for key, tensor in tensors_in(content).items()}
    except SafetensorError as error:
        raise ModelError(f"damaged, install gsd again: {error}") from error
    # A header of JSON comes first, and before it the number of its bytes.
    header = parse_json(content[8 : 8 + int.from_bytes(content[:8], "little")].decode(), name)
    info = ModelInfo.from_json(header.get("__metadata__", {}).get(EXTRA_FILE, ""))
    return ShippedWeights(info, state, hashlib.sha256(content).hexdigest()[:16])


def read_card(name: str) -> ModelCard:
    """Read the card of a shipped model.

    Raises:
        InputError: it is not there, cannot be read or is none.
    """
    path = FOLDER / f"{name}.json"
    return ModelCard.from_json(read_text(path), path)


def write_weights(state: Mapping[str, torch.Tensor], info: ModelInfo, path: Path) -> None:
    """Write weights in the form that ``read_weights`` reads, rounded to float16.

    Raises:
        ModelError: they are not what ``info`` tells, too many, or too large for float16.
        OutputError: the file cannot be written.
    """
    rounded = {key: tensor.half().contiguous() for key, tensor in state.items()}
    wide = [key for key, tensor in rounded.items() if not all_finite(tensor)]
    if wide:
        raise ModelError(f"{path}: {wide[0]} holds numbers that float16 has not")
    ShippedWeights(info, rounded, "").network()
    content = as_safetensors(rounded, metadata={EXTRA_FILE: info.to_json()})
    if len(content) > LARGEST:
        raise ModelError(f"{path}: would have {len(content):,} bytes, more than {LARGEST:,}")
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)
