"""The weights of models that come with gsd.

They are the whole state of a network as safetensors in float16, the time layers of stage 1
included, so that training can start from them; ``gsd.json`` in the file's header is their
``ModelInfo``. The network is compiled where it is used: a TorchScript file would be larger, and
training could not start from it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_in
from safetensors.torch import save as as_safetensors

from genselfdiff.errors import InputError, ModelError
from genselfdiff.files import atomic_file
from genselfdiff.input_files import read_bytes
from genselfdiff.models.model_info import EXTRA_FILE, ModelInfo
from genselfdiff.models.registry import create_model
from genselfdiff.models.shipped.catalogue import LARGEST, info_in, weights_file
from genselfdiff.models.unet import UNet
from genselfdiff.models.weights import all_finite, load_initial_weights


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
            raise ModelError(f"{EXTRA_FILE} names no architecture of gsd: {error}") from error
        load_initial_weights(network, self.state, origin="weights", head=True)
        return network


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
    return ShippedWeights(info_in(content), state, hashlib.sha256(content).hexdigest()[:16])


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
