"""Networks of other people's as models of ours: anything that makes classes of images."""

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from genselfdiff.choices import INPUT_SCALINGS, class_color
from genselfdiff.errors import InputError, ModelError, one_line
from genselfdiff.files import refuse_existing, refuse_inputs
from genselfdiff.input_files import open_input
from genselfdiff.machine import choose_device
from genselfdiff.models.archive.code import check_compiled
from genselfdiff.models.archive.reading import read_archive
from genselfdiff.models.checkpoints.architectures import network_of_checkpoint
from genselfdiff.models.formats.torchscript_file import archive_of, load_archived, load_module
from genselfdiff.models.model_file import LoadedModel, check_probabilities, load_model, save_model
from genselfdiff.models.model_info import OVERLAP, ModelInfo
from genselfdiff.text import counted

_SIZE_MULTIPLE = 32
"""What five halvings of the size need, which is what most networks have at most."""

_LEAST = 1e-30
"""Of a probability whose logarithm is taken."""

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of red, green and blue in 0..1, as torchvision's models have them."""

_SUM = 1e-3
"""How far from 1 probabilities may sum up."""


class Normalized(nn.Module):
    """A network that wants what ImageNet's mean and deviation make of images in 0..1."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None])
        self.register_buffer("deviation", torch.tensor(IMAGENET_DEVIATION)[:, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) in 0..1."""
        y: torch.Tensor = self.network((x - self.mean) / self.deviation)
        return y


class ImageNetwork(nn.Module):
    """A network that takes images alone, called as `Segmenter` calls one.

    Args:
        network: (N, 3, H, W) to (N, C, H, W).
        gives_probabilities: else logits.
        size_multiple: of what H and W are multiples.
    """

    def __init__(self, network: nn.Module, gives_probabilities: bool, size_multiple: int) -> None:
        super().__init__()
        self.network = network
        self.gives_probabilities = gives_probabilities
        self.size_multiple = size_multiple
        self.least = _LEAST

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Logits of ``x``, whatever ``t``."""
        output = self.network(x)
        if self.gives_probabilities:  # whose softmax they are again
            output = output.clamp(min=self.least).log()
        return output


def wrap_model(
    network: nn.Module | str | Path,
    *,
    classes: Sequence[str],
    mpp: float | None,
    architecture: str | None = None,
    tile_size: int = 512,
    input_scaling: str = "zero_one",
    imagenet: bool = False,
    size_multiple: int = _SIZE_MULTIPLE,
    overlap: float = OVERLAP,
    colors: Sequence[tuple[int, int, int]] | None = None,
    licence: str = "",
    output: str | Path | None = None,
    overwrite: bool = False,
    device: str | None = None,
) -> LoadedModel:
    """Make a model for slides of any network whose ``forward(x)`` gives logits or probabilities.

    It is run on one tile first, which tells which of both it gives, and whether it fits.

    Args:
        network: a module that ``torch.jit.script`` compiles, a TorchScript module, or the file of
            one, which is looked at before it is loaded as a model's is; or with ``architecture`` a
            file of weights. It takes (N, 3, H, W)
            floating-point images, H and W multiples of ``size_multiple``, and gives (N, C, H, W).
            It is left as it is.
        classes: name of each of the C classes, background first.
        mpp: um per pixel that it was trained at; None: slides are taken as they are.
        architecture: of a file that holds weights alone, see ``network_of_checkpoint``.
        tile_size: side in pixels of the tiles to predict.
        imagenet: the network wants ImageNet's mean and deviation taken out of images in 0..1.
        input_scaling: "zero_one" (0..1) or "minus_one_one" (-1..1), of what the network sees.
        size_multiple: 8, 16 or 32.
        overlap: part of a tile that it shares with its neighbour, 0 to 0.5.
        colors: (red, green, blue) of each class; None: the usual ones.
        licence: terms of use, kept in the model.
        output: a model file to write as well, for ``gsd segment``.
        overwrite: replace ``output`` if it exists.
        device: as for ``load_model``; without ``output`` a single one.

    Raises:
        ModelError: the network fails on a tile, or gives other than finite numbers for each class
            and pixel; it does not compile, or its file is none that computes only.
        InputError: no such device or architecture, or what builds it is not installed.
        OutputError: ``output`` exists or cannot be written.
    """
    if isinstance(classes, str):
        raise ModelError(f"classes {classes!r}: give a list of names, background first")
    if imagenet and input_scaling != "zero_one":
        raise InputError("ImageNet's mean and deviation are those of images in 0..1: zero_one")
    if architecture is not None and isinstance(network, nn.Module):
        raise InputError(f"architecture {architecture}: is of a file of weights: leave it out")
    info = ModelInfo(
        classes=tuple(classes),
        colors=tuple(colors or map(class_color, range(len(classes)))),
        mpp=mpp,
        tile_size=tile_size,
        input_scaling=input_scaling,
        size_multiple=size_multiple,
        overlap=overlap,
        architecture={} if architecture is None else {"name": architecture},
        licence=licence,
    )
    source = Path(network) if isinstance(network, str | Path) else None
    name = "network" if source is None else str(source)
    if output is not None:
        refuse_existing(Path(output), overwrite)
        refuse_inputs([Path(output)], [] if source is None else [source])
    try:
        if isinstance(network, nn.Module):
            module = network
        elif architecture is None:
            module = _read(Path(network))
        else:
            module = network_of_checkpoint(Path(network), architecture)
        fitting = _fitted(Normalized(module) if imagenet else module, info)
        if output is None:
            parts = load_archived(archive_of(fitting, info), choose_device(device))
            return LoadedModel(name, parts.info, choose_device(device), parts.module, parts.digest)
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error
    save_model(fitting, info, output)
    return load_model(Path(output), device)


def _read(path: Path) -> nn.Module:
    """The module in a TorchScript file of anybody's."""
    if not path.is_file():
        raise ModelError("there is no such file")
    try:
        with open_input(path) as file:
            archive = read_archive(file, described=False)
    except InputError as error:
        raise ModelError(one_line(error)) from error
    if archive.metadata:
        raise ModelError("is a model of gsd already: use it as it is")
    try:
        with archive.content as content:
            module = load_module(content, torch.device("cpu"))
        check_compiled(module)
    except RuntimeError as error:
        raise ModelError(f"damaged TorchScript file: {one_line(error)}") from error
    return module


def _fitted(network: nn.Module, info: ModelInfo) -> ImageNetwork:
    """``network`` as it is called, if it makes of a tile what ``info`` says."""
    with torch.no_grad():  # else what TorchScript copies are no parameters any more
        network = copy.deepcopy(network).cpu().eval()
    for parameter in network.parameters():  # TorchScript has no requires_grad_ of its own
        parameter.requires_grad_(False)
    side = info.tile_size
    generator = torch.Generator().manual_seed(0)
    tile = torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8, generator=generator)
    factor, shift = INPUT_SCALINGS[info.input_scaling]
    like = next(network.parameters(), torch.empty(0))
    seen = (tile.to(torch.float32) * factor + shift).to(like.dtype)
    try:
        with torch.inference_mode():
            output = network(seen)
    except Exception as error:  # whatever somebody's network raises
        raise ModelError(f"fails on a tile of {side} pixels: {one_line(error)}") from error
    output = check_probabilities(output, tile).float()
    if output.shape[1] != len(info.classes):
        raise ModelError(
            f"gives {counted(output.shape[1], 'channel')}, but {len(info.classes)} classes are"
            " named: give one of each, the background's first"
        )
    if not output.isfinite().all():
        raise ModelError(
            f"gives numbers that are infinite or none for a tile of {side} pixels: is"
            f" input_scaling {info.input_scaling} what it was trained with?"
        )
    is_share = bool((output >= 0).all()) and bool(((output.sum(1) - 1).abs() < _SUM).all())
    return ImageNetwork(network, is_share, info.size_multiple)
