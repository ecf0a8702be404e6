"""The network in a model file of ours, to be written in another format."""

import torch
from torch import nn

from genselfdiff.errors import GsdError, ModelError
from genselfdiff.models.export import for_export
from genselfdiff.models.formats.exported_program import SIZES, TOLERANCE, example_images
from genselfdiff.models.model_file import LoadedModel
from genselfdiff.models.registry import create_model
from genselfdiff.models.segmenter import prepared_segmenter

_PREFIX = "network."
_PACKED = ".packed"
"""Of ``PackedConv3x3``, made of the weights; a file has it empty."""

_MOST_TIME = 2
"""The layers for time, which a model file has no more, are less than half of a network."""


def restored_network(model: LoadedModel) -> nn.Module:
    """The network of a model as ``for_export`` makes it, which ``save_model`` takes again.

    It is built anew, as the description of the model says, and gets the model's weights.

    Args:
        model: on the CPU.

    Raises:
        ModelError: the model is no U-Net of ours, or its weights are not in it.
    """
    refused = ModelError(
        f"{model.source}: cannot be converted: only a U-Net of gsd's can, from TorchScript"
    )
    found = model.module.state_dict()
    state = {
        name.removeprefix(_PREFIX): found[name]
        for name in found
        if name.startswith(_PREFIX) and not name.endswith(_PACKED)
    }
    try:
        with torch.device("meta"):
            wanted = _size(_fresh(model).state_dict())
        if wanted > _MOST_TIME * _size(state):  # as wide as it claims to be
            raise refused
        network = for_export(_fresh(model), portable=True)
        network.load_state_dict(state)
    except (GsdError, KeyError, TypeError, RuntimeError) as error:
        raise refused from error
    segmenter = prepared_segmenter(network, model.info, portable=True)
    for images in map(example_images, SIZES):  # its description could say anything
        with torch.no_grad():
            difference = (segmenter(images) - model(images)).abs().max()
        if not difference <= TOLERANCE:
            raise refused
    return network


def _fresh(model: LoadedModel) -> nn.Module:
    architecture = model.info.architecture
    return create_model(
        architecture["name"], out_channels=model.info.logits, width=architecture["width"]
    )


def _size(state: dict[str, torch.Tensor]) -> int:
    return sum(tensor.numel() for tensor in state.values())
