"""The exported model: one TorchScript file that knows what it needs to be used.

A portable file loads in a process that has only torch (``torch.jit.load``), a fused one where this
package or its native library is loaded too; the ``gsd.json`` extra file of either is the metadata
of ``ModelInfo``.
"""

import io
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import torch
from torch import nn
from torch.jit.frontend import FrontendError

from genselfdiff.errors import InputError, ModelError, one_line
from genselfdiff.files import atomic_file
from genselfdiff.inference.device import choose_devices
from genselfdiff.inference.model_archive import EXTRA_FILE, ModelArchive, read_archive
from genselfdiff.inference.model_code import check_compiled
from genselfdiff.inference.model_info import (
    INPUT_SCALINGS,
    SIZE_MULTIPLE,
    ModelInfo,
    check_input_scaling,
)
from genselfdiff.input_files import open_input
from genselfdiff.kernels import OPERATIONS
from genselfdiff.models import for_export
from genselfdiff.models.torchscript import script, without_deprecations

logger = logging.getLogger("genselfdiff")

Module = TypeVar("Module", bound=nn.Module)


def mirrored_indices(length: int, padded: int) -> torch.Tensor:
    """(padded,) int64 indices below ``length``: 0, 1, ... and back, the edge never repeated.

    Like reflection padding at the end, but for any ``padded``, even from a single element.
    """
    period = max(2 * (length - 1), 1)
    phase = torch.arange(padded) % period
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
        if padded_height != height:
            x = x.index_select(2, mirrored_indices(height, padded_height).to(x.device))
        if padded_width != width:
            x = x.index_select(3, mirrored_indices(width, padded_width).to(x.device))
        x = (x.to(torch.float32) * self.factor + self.shift).to(self.like.dtype)
        t = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
        logits = self.network(x, t)[:, :, :height, :width]
        logits = logits.to(torch.float32)
        if not self.cores:
            return logits.softmax(1)
        classes, core = logits[:, :-2].softmax(1), logits[:, -2:].softmax(1)[:, 1:]
        return torch.cat((classes, core), 1)


def check_probabilities(given: object, images: torch.Tensor) -> torch.Tensor:
    """What a model gives for ``images`` (N, 3, H, W), if it can be probabilities (N, C, H, W).

    Raises:
        ModelError: it has another type or shape.
    """
    if not isinstance(given, torch.Tensor):
        raise ModelError(f"gives {type(given).__name__} instead of a tensor of probabilities")
    if given.layout != torch.strided or not given.is_floating_point():
        raise ModelError(f"gives {given.dtype}, {given.layout} instead of probabilities")
    count, _, height, width = images.shape
    if given.dim() != 4 or given.shape[0] != count or given.shape[2:] != images.shape[2:]:
        raise ModelError(
            f"gives shape {tuple(given.shape)} for {count} images of {width} x {height} pixels"
        )
    return given


@dataclass(frozen=True)
class LoadedModel:
    """A model file, ready to predict.

    ``module`` is on ``device``; ``further`` are GPUs that a ``Predictor`` uses beside it;
    ``digest`` tells the file from others, as it was when it was read.
    """

    path: Path
    info: ModelInfo
    device: torch.device
    module: torch.jit.ScriptModule
    digest: str
    further: tuple[torch.device, ...] = ()

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """``Segmenter.forward`` without gradients.

        Args:
            images: (N, 3, H, W), uint8 or floating point in 0..255, on any device.

        Returns:
            (N, C, H, W) float32 probabilities on ``device``.

        Raises:
            ModelError: the model gives something else.
        """
        if images.is_floating_point() and images.numel():
            low, high = (extreme.item() for extreme in images.aminmax())
            if low < 0 or 0 < high <= 1:
                logger.warning(
                    "%s: takes images in 0..255, but these lie in %g..%g", self.path, low, high
                )
        with torch.inference_mode():
            given = self.module(images.to(self.device))
        try:
            return check_probabilities(given, images)
        except ModelError as error:
            raise ModelError(f"{self.path}: {error}") from error


def save_model(
    network: nn.Module, info: ModelInfo, path: str | Path, *, portable: bool = False
) -> None:
    """Export ``network`` (left as it is) as TorchScript, not frozen, so that its dtype can change.

    Args:
        network: see ``Segmenter``.
        info: its description.
        path: the file to write.
        portable: whether the file must do with plain torch. Otherwise the blocks of the U-Net are
            ``gsd`` operations, which the native library computes in float32 and bfloat16.

    Raises:
        ModelError: the network does not compile or run, its output does not have one channel per
            class, or it needs operators beyond those.
        OutputError: the file cannot be written.
    """
    path = Path(path)
    segmenter = Segmenter(
        for_export(network, portable=portable), info.input_scaling, info.instances
    )
    if segmenter.size_multiple != info.size_multiple:
        raise ModelError(
            f"{path}: the network sees multiples of {segmenter.size_multiple} pixels, but its"
            f" description says {info.size_multiple}"
        )
    # The gsd operations work on channels_last memory, and convolutions follow their weights.
    layout = torch.contiguous_format if portable else torch.channels_last
    segmenter = with_memory_format(segmenter, layout)
    try:
        compiled = script(segmenter)
        with torch.inference_mode():
            channels = compiled(torch.zeros(1, 3, 16, 16, dtype=torch.uint8)).shape[1]
    except (RuntimeError, torch.jit.Error, FrontendError) as error:
        raise ModelError(f"{path}: the network cannot be exported: {one_line(error)}") from error
    if channels != info.channels:
        raise ModelError(
            f"{path}: the network gives {channels} channels, but {len(info.classes)} classes are"
            f" named{' beside cores' if info.instances else ''}: name as many as the network was"
            " trained with"
        )
    needed: list[str] = torch.jit.export_opnames(compiled)  # type: ignore[no-untyped-call]
    ours = [name for name in needed if name.startswith("gsd::")]
    if portable and ours:
        raise ModelError(f"{path}: the exported network would need {ours[0]} beside plain torch")
    # To memory first: torch ends the process where a disk is full.
    saved = io.BytesIO()
    with without_deprecations():
        torch.jit.save(compiled, saved, _extra_files={EXTRA_FILE: info.to_json()})
    try:
        content = read_archive(saved).content
    except ModelError as error:
        raise ModelError(f"{path}: the network cannot be exported: it {error}") from error
    with content, atomic_file(path) as temporary, temporary.open("wb") as file:
        shutil.copyfileobj(content, file, 2**20)


def load_model(path: str | Path, device: str | torch.device | None = None) -> LoadedModel:
    """Read a file of ``save_model``.

    Args:
        path: the model file.
        device: "cpu", "cuda", "cuda:1", "mps", or several GPUs, "cuda:0,cuda:1"; None: the best
            there is.

    Raises:
        ModelError: missing, damaged, not one of ours, or of a newer format.
        InputError: the device is not there, or GSD_KERNELS asks for what the model cannot do on it.
    """
    path = Path(path)
    chosen, *further = choose_devices(device)
    archive = _read(path)
    with archive.content as content:
        try:
            info = ModelInfo.from_json(archive.metadata)
            module = _loaded(content, chosen)
            needed = check_compiled(module)
            if not hasattr(module, "forward"):
                raise ModelError("has no forward method that takes images")
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error
        except RuntimeError as error:
            raise ModelError(f"{path}: damaged model file: {one_line(error)}") from error
    for operation in OPERATIONS:
        if f"gsd::{operation.name}" in needed:
            operation.check_scripted(chosen)
    module.eval()
    return LoadedModel(path, info, chosen, module, archive.digest, tuple(further))


def find_model(
    model: LoadedModel | str | Path | None = None, device: str | None = None
) -> LoadedModel:
    """``model`` itself, or loaded from the file it names, or from the one that GSD_MODEL names.

    Raises:
        ModelError: there is none, or it is not one of ours.
    """
    if isinstance(model, LoadedModel):
        return model
    named = model or os.environ.get("GSD_MODEL")
    if not named:
        raise ModelError(
            "no model: give --model FILE or set GSD_MODEL; 'gsd train finetune' trains one and"
            " 'gsd export RUN -o model.ts' writes its file"
        )
    return load_model(named, device)


def _read(path: Path) -> ModelArchive:
    if path.is_dir():
        raise ModelError(
            f"{path}: a folder: 'gsd export {path} -o model.ts' makes a model file of a run"
        )
    if not path.exists():
        raise ModelError(f"{path}: there is no such model file")
    try:
        with open_input(path) as file:
            return read_archive(file)
    except InputError as error:
        raise ModelError(str(error)) from error
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def with_memory_format(module: Module, memory_format: torch.memory_format) -> Module:
    """The same module, its convolution weights laid out as ``memory_format``."""
    # torch's own types leave this argument of Module.to out.
    converted: Module = cast(Any, module).to(memory_format=memory_format)
    return converted


def _loaded(content: BinaryIO, device: torch.device) -> torch.jit.ScriptModule:
    path = Path(f"/dev/fd/{content.fileno()}")  # torch copies what it reads from Python's files
    source = str(path) if path.exists() else content
    with without_deprecations():
        module: torch.jit.ScriptModule = torch.jit.load(  # type: ignore[no-untyped-call]
            source, map_location=device
        )
    return module
