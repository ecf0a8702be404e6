"""A network with everything around it, as it is exported: images in, probabilities out."""

from typing import Any, TypeVar, cast

import torch
from torch import nn
from torch.jit.frontend import FrontendError

from genselfdiff.choices import INPUT_SCALINGS, SIZE_MULTIPLE
from genselfdiff.errors import ModelError, one_line
from genselfdiff.models.export import for_export
from genselfdiff.models.model_info import ModelInfo, check_input_scaling
from genselfdiff.models.torchscript import script
from genselfdiff.text import counted

Module = TypeVar("Module", bound=nn.Module)


def mirrored_indices(length: int, padded: int, device: torch.device) -> torch.Tensor:
    """(padded,) int64 indices below ``length``: 0, 1, ... and back, the edge never repeated.

    Like reflection padding at the end, but for any ``padded``, even from a single element.
    """
    # A tensor: what torch.export knows of ``length`` is no number, and ONNX divides by none.
    period = torch.full((1,), max(2 * (length - 1), 1), dtype=torch.int64, device=device)
    phase = torch.arange(padded, device=device) % period
    return torch.minimum(phase, period - phase)


def size_multiple_of(network: nn.Module) -> int:
    """Of what the heights and widths that a network sees must be multiples."""
    return int(getattr(network, "size_multiple", SIZE_MULTIPLE))


class Segmenter(nn.Module):
    """A network with everything around it: images in, class probabilities out.

    Args:
        network: called as ``network(x, t)`` with x (N, 3, H, W) in the parameters' dtype, H and W
            multiples of its ``size_multiple`` (8 where it tells none), and t (N,) int64 zeros;
            returns logits (N, C, H, W). Must compile with ``torch.jit.script``.
        input_scaling: see ``ModelInfo``.
        cores: the last two channels tell cores of objects, see ``ModelInfo``.
    """

    like: torch.Tensor

    def __init__(self, network: nn.Module, input_scaling: str, cores: bool = False) -> None:
        super().__init__()
        check_input_scaling(input_scaling)
        self.network = network
        self.cores = cores
        self.size_multiple = size_multiple_of(network)
        self.factor, self.shift = INPUT_SCALINGS[input_scaling]
        first = next(network.parameters(), torch.empty(0))
        # Follows the parameters through .to(dtype): TorchScript cannot ask a module for its dtype.
        self.register_buffer("like", torch.empty(0, dtype=first.dtype, device=first.device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class probabilities of RGB images.

        Args:
            x: (N, 3, H, W), uint8 or floating point, both in 0..255; any H and W from 1 on.

        Returns:
            (N, C, H, W) float32, summing to 1 over C; with ``cores`` one channel more, the
            probability of the core of an object.
        """
        if x.dim() != 4 or x.shape[1] != 3:
            raise ValueError(f"expected images of shape (N, 3, H, W), got {list(x.shape)}")
        if x.dtype != torch.uint8 and not x.is_floating_point():
            raise ValueError("expected images in 0..255 as uint8 or floating point, got integers")
        height, width = x.shape[2], x.shape[3]
        if height == 0 or width == 0:
            raise ValueError("expected images of at least 1 x 1 pixel")
        multiple = self.size_multiple
        padded_height = (height + multiple - 1) // multiple * multiple
        padded_width = (width + multiple - 1) // multiple * multiple
        # A graph of torch.export has no branches: it pads whatever the size.
        any_size = not torch.jit.is_scripting()  # type: ignore[attr-defined]
        if any_size or padded_height != height:
            x = x.index_select(2, mirrored_indices(height, padded_height, x.device))
        if any_size or padded_width != width:
            x = x.index_select(3, mirrored_indices(width, padded_width, x.device))
        x = (x.to(torch.float32) * self.factor + self.shift).to(self.like.dtype)
        t = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
        logits = self.network(x, t)[:, :, :height, :width]
        logits = logits.to(torch.float32)
        if not self.cores:
            return logits.softmax(1)
        classes, core = logits[:, :-2].softmax(1), logits[:, -2:].softmax(1)[:, 1:]
        return torch.cat((classes, core), 1)


def prepared_segmenter(network: nn.Module, info: ModelInfo, *, portable: bool) -> Segmenter:
    """``network`` (left as it is) as a ``Segmenter``, ready to be exported.

    Args:
        network: see ``Segmenter``.
        info: its description.
        portable: see ``for_export``.

    Raises:
        ModelError: the network is not what ``info`` says.
    """
    segmenter = Segmenter(
        for_export(network, portable=portable), info.input_scaling, info.instances
    )
    if segmenter.size_multiple != info.size_multiple:
        raise ModelError(
            f"the network sees multiples of {segmenter.size_multiple} pixels, but its description"
            f" says {info.size_multiple}"
        )
    # The gsd operations work on channels_last memory, and convolutions follow their weights.
    layout = torch.contiguous_format if portable else torch.channels_last
    return with_memory_format(segmenter, layout).eval()


def compiled_segmenter(
    network: nn.Module, info: ModelInfo, *, portable: bool
) -> torch.jit.ScriptModule:
    """``prepared_segmenter`` in TorchScript, not frozen, so that its dtype can change.

    Raises:
        ModelError: the network does not compile or run, or is not what ``info`` says.
    """
    segmenter = prepared_segmenter(network, info, portable=portable)
    try:
        compiled = script(segmenter)
        # Not steady_inference: torch 2.10 could not list the operators of the module afterwards.
        with torch.inference_mode():
            channels = compiled(torch.zeros(1, 3, 16, 16, dtype=torch.uint8)).shape[1]
    except (RuntimeError, torch.jit.Error, FrontendError) as error:
        raise ModelError(f"the network cannot be exported: {one_line(error)}") from error
    check_channels(channels, info)
    return compiled


def check_channels(channels: int, info: ModelInfo) -> None:
    """Raise ModelError unless a network that gives so many is one of these classes."""
    if channels != info.channels:
        raise ModelError(
            f"the network gives {counted(channels, 'channel')}, but {len(info.classes)} classes are"
            f" named{' beside cores' if info.instances else ''}: name as many as the network was"
            " trained with"
        )


def with_memory_format(module: Module, memory_format: torch.memory_format) -> Module:
    """The same module, its convolution weights laid out as ``memory_format``."""
    # torch's own types leave this argument of Module.to out.
    converted: Module = cast(Any, module).to(memory_format=memory_format)
    return converted
