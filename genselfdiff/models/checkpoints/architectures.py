"""Networks by the name of their architecture, with the weights of a file."""

import logging
import warnings
from pathlib import Path

import torch
from torch import nn

from genselfdiff.errors import InputError, ModelError, one_line
from genselfdiff.models.checkpoints.plain_unet import PlainUNet
from genselfdiff.models.checkpoints.state_dicts import State, read_state_dict
from genselfdiff.models.torchscript import script
from genselfdiff.models.weights import require_weights

logger = logging.getLogger("genselfdiff")

PLAIN = "unet"
_SMP = "smp:"
_HEAD = "segmentation_head.0.weight"
"""Of every network of segmentation_models_pytorch, as many outputs as it gives."""
_TOLERANCE = 1e-4
"""How far logits may be off for another size than that which was traced."""


class OneAgainstRest(nn.Module):
    """Logits of background and of the one class whose logit a network gives."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, 2, H, W), the softmax of which is the sigmoid of the one logit."""
        logit = self.network(x)
        return torch.cat((torch.zeros_like(logit), logit), 1)


def network_of_checkpoint(path: Path, architecture: str) -> nn.Module:
    """Build a network and give it the weights of a file.

    Args:
        path: see ``read_state_dict``.
        architecture: "unet", see ``PlainUNet``, or "smp:ARCHITECTURE:ENCODER", one of
            segmentation_models_pytorch with its defaults, such as "smp:Unet:resnet34".

    Returns:
        A network that gives logits; of one output alone, with those of the background before.

    Raises:
        InputError: no such architecture, or its package is not installed.
        ModelError: the file holds no weights, or those of another network.
    """
    if architecture != PLAIN and not architecture.startswith(_SMP):
        raise InputError(
            f"no architecture {architecture!r} of checkpoints: give {PLAIN}, or"
            f" {_SMP}ARCHITECTURE:ENCODER such as {_SMP}Unet:resnet34"
        )
    state = read_state_dict(path)
    is_plain = architecture == PLAIN
    network = PlainUNet(state) if is_plain else _of_smp(architecture, state)
    require_weights(architecture, state, network.state_dict())
    network.load_state_dict(state)
    outputs = len(state["outc.conv.weight" if is_plain else _HEAD])
    if not is_plain:
        network = _compilable(network.eval(), architecture)
    return OneAgainstRest(network) if outputs == 1 else network


def _compilable(network: nn.Module, architecture: str) -> nn.Module:
    """The network itself, if TorchScript compiles it, or else what it does with an image.

    Raises:
        ModelError: what it does depends on the size.
    """
    try:
        script(network)
    except Exception as error:  # of TorchScript's compiler, and of somebody's module in it
        logger.debug("%s: is traced, not compiled: %s", architecture, one_line(error))
    else:
        return network
    generator = torch.Generator().manual_seed(0)
    sizes = ((1, 3, 128, 128), (2, 3, 160, 192))
    small, large = (torch.rand(size, generator=generator) for size in sizes)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes, which are tried below
            traced: nn.Module = torch.jit.trace(network, small)  # type: ignore[no-untyped-call]
            difference = (traced(large) - network(large)).abs().max()
    except Exception as error:
        raise ModelError(f"{architecture} cannot be compiled: {one_line(error)}") from error
    if not difference <= _TOLERANCE:
        raise ModelError(f"{architecture} cannot be compiled: it does otherwise for each size")
    return traced


def _of_smp(architecture: str, state: State) -> nn.Module:
    try:
        import segmentation_models_pytorch as smp
    except ImportError as error:
        raise InputError(
            f"{architecture}: is built by segmentation_models_pytorch, which cannot be imported"
            f" ({one_line(error)}): pip install 'genselfdiff[smp]'"
        ) from error
    _, kind, encoder = (*architecture.split(":", 2), "")[:3]
    if _HEAD not in state:
        raise ModelError(f"no weights of {architecture}: they have no {_HEAD}")
    try:
        network: nn.Module = smp.create_model(
            kind, encoder, encoder_weights=None, classes=len(state[_HEAD])
        )
    except Exception as error:  # KeyError, ValueError, of whatever an encoder does
        raise InputError(f"{architecture}: {one_line(error)}") from error
    return network
