"""Whole weights of models: of those that come with gsd, and of folders that are passed on.

They are the whole state of a network as safetensors, the time layers of stage 1 included, so that
training can start from them; ``gsd.json`` in the file's header is their ``ModelInfo``. The network
is compiled where it is used: a TorchScript file would be larger, and training could not start from
it.
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
from genselfdiff.input_files import LARGEST_TEXT, read_bytes
from genselfdiff.models.model_info import EXTRA_FILE, ModelInfo
from genselfdiff.models.registry import create_model
from genselfdiff.models.shipped.catalogue import LARGEST, info_in, weights_file
from genselfdiff.models.unet import UNet
from genselfdiff.models.weights import all_finite, load_initial_weights


@dataclass(frozen=True)
class WholeWeights:
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
            with torch.device("meta"):
                wanted = create_model(name, out_channels=self.info.logits, width=width)
            if sum(each.numel() for each in wanted.state_dict().values()) > self.parameters:
                raise ModelError("the weights are fewer than those of its architecture")
            network = create_model(name, out_channels=self.info.logits, width=width)
        except (KeyError, TypeError, InputError) as error:
            raise ModelError(f"{EXTRA_FILE} names no architecture of gsd: {error}") from error
        load_initial_weights(network, self.state, origin="weights", head=True)
        return network


def read_weights(name: str) -> WholeWeights:
    """Read the weights of a shipped model.

    Raises:
        ModelError: the file is damaged.
        InputError: it cannot be read.
    """
    try:
        return parse_weights(read_bytes(weights_file(name), LARGEST))
    except ModelError as error:
        raise ModelError(f"{error}: install gsd again") from error


def parse_weights(content: bytes) -> WholeWeights:
    """The weights in a file of ``save_weights``.

    Raises:
        ModelError: it is damaged.
    """
    try:
        state = {key: tensor.float() for key, tensor in tensors_in(content).items()}
    except SafetensorError as error:
        raise ModelError(f"damaged weights: {error}") from error
    return WholeWeights(info_in(content), state, hashlib.sha256(content).hexdigest()[:16])


def write_weights(state: Mapping[str, torch.Tensor], info: ModelInfo, path: Path) -> None:
    """Write weights as gsd is shipped with them, rounded to float16.

    Raises:
        ModelError: they are not what ``info`` tells, too many, or too large for float16.
        OutputError: the file cannot be written.
    """
    rounded = {key: tensor.half() for key, tensor in state.items()}
    wide = [key for key, tensor in rounded.items() if not all_finite(tensor)]
    if wide:
        raise ModelError(f"{path}: {wide[0]} holds numbers that float16 has not")
    save_weights(rounded, info, path, at_most=LARGEST)


def in_half(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor] | None:
    """``state`` in float16; None where that is not the same numbers."""
    rounded = {key: tensor.half() for key, tensor in state.items()}
    is_same = all(torch.equal(rounded[key].float(), state[key]) for key in state)
    return rounded if is_same else None


def save_weights(
    state: Mapping[str, torch.Tensor], info: ModelInfo, path: Path, at_most: int = LARGEST_TEXT
) -> None:
    """Write weights, in the type that they have, with their description.

    Raises:
        ModelError: they are not what ``info`` tells, or have more than ``at_most`` bytes.
        OutputError: the file cannot be written.
    """
    WholeWeights(info, state, "").network()
    plain = {key: tensor.contiguous() for key, tensor in state.items()}
    content = as_safetensors(plain, metadata={"format": "pt", EXTRA_FILE: info.to_json()})
    if len(content) > at_most:
        raise ModelError(f"{path}: would have {len(content):,} bytes, more than {at_most:,}")
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)
