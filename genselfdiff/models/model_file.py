"""The exported model, one file that knows what it needs to be used; and loading models.

``formats/`` has what it is written as. A portable TorchScript file loads in a process that has only
torch (``torch.jit.load``), a fused one where this package or its native library is loaded too; a
file of ``torch.export`` where torch is, an ONNX file where onnxruntime is. The ``gsd.json`` in each
is the metadata of ``ModelInfo``.
"""

import logging
import os
import shutil
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import nn

from genselfdiff.choices import DEFAULT_MODEL
from genselfdiff.errors import GsdError, InputError, ModelError, one_line
from genselfdiff.files import atomic_file
from genselfdiff.input_files import open_input
from genselfdiff.machine import choose_devices
from genselfdiff.models.formats.choosing import format_of, require_suffix
from genselfdiff.models.formats.format import ModelParts
from genselfdiff.models.formats.torchscript_file import check_loaded
from genselfdiff.models.model_info import EXTRA_FILE, ModelInfo
from genselfdiff.models.pixels import Picture, rgb_pixels
from genselfdiff.models.published.model_folder import WEIGHTS, has_whole_weights, whole_weights
from genselfdiff.models.segmenter import compiled_segmenter
from genselfdiff.models.shipped import catalogue
from genselfdiff.models.torchscript import steady_inference
from genselfdiff.storage.opening import cached_copy
from genselfdiff.storage.places import Place, Url, place_of
from genselfdiff.text import counted

logger = logging.getLogger("genselfdiff")

_RUN_SETTINGS = "config.toml"
"""In a run folder of ``gsd train``, which is no model yet."""


def check_probabilities(output: object, images: torch.Tensor) -> torch.Tensor:
    """What a model gives for ``images`` (N, 3, H, W), if it can be probabilities (N, C, H, W).

    Raises:
        ModelError: it has another type or shape.
    """
    if not isinstance(output, torch.Tensor):
        raise ModelError(f"gives {type(output).__name__} instead of a tensor of probabilities")
    if output.layout != torch.strided or not output.is_floating_point():
        raise ModelError(f"gives {output.dtype}, {output.layout} instead of probabilities")
    count, _, height, width = images.shape
    if output.dim() != 4 or output.shape[0] != count or output.shape[2:] != images.shape[2:]:
        raise ModelError(
            f"gives shape {tuple(output.shape)} for {counted(count, 'image')} of {width} x {height}"
            " pixels"
        )
    return output


@dataclass(frozen=True)
class LoadedModel:
    """A model, ready to predict.

    ``source`` is what loads it again: its file, or the name of a shipped model. ``module`` is on
    ``device``; ``further`` are GPUs that a ``Predictor`` uses beside it; ``digest`` tells the
    file from others, as it was when it was read. ``float32_only`` is whether the module computes
    in no other precision.
    """

    source: Path | str
    info: ModelInfo
    device: torch.device
    module: nn.Module
    digest: str
    further: tuple[torch.device, ...] = ()
    float32_only: bool = False

    @property
    def path(self) -> Path:
        """The file that it was read from."""
        return model_path(self.source)

    @overload
    def __call__(self, images: torch.Tensor, *, labels: bool = False) -> torch.Tensor: ...
    @overload
    def __call__(
        self, images: NDArray[np.uint8] | Image, *, labels: Literal[False] = False
    ) -> NDArray[np.float32]: ...
    @overload
    def __call__(
        self, images: NDArray[np.uint8] | Image, *, labels: Literal[True]
    ) -> NDArray[np.uint8]: ...

    def __call__(
        self, images: Picture, *, labels: bool = False
    ) -> torch.Tensor | NDArray[np.float32] | NDArray[np.uint8]:
        """Predict an image as one piece, or a batch of them; large ones: ``predict_image``.

        Args:
            images: (H, W, 3) uint8 RGB of NumPy, an image of Pillow, (3, H, W) or (H, W, 3) uint8
                of torch; or a batch, (N, 3, H, W) of torch, uint8 or floating point in 0..255. On
                any device.
            labels: give the index of the most probable class instead of probabilities.

        Returns:
            (C, H, W) float32 probabilities, beside those of the classes that of cores of objects
            where ``info.instances``; with ``labels`` (H, W) uint8. Of a batch with N before. Of
            what torch has given a tensor on ``device``, else an array of NumPy.

        Raises:
            InputError: it is no such image.
            ModelError: the model gives something else.
        """
        if isinstance(images, torch.Tensor) and images.dim() == 4:
            return self._chosen(self._run(images), labels)
        batch = torch.from_numpy(rgb_pixels(images).transpose(2, 0, 1).copy())[None]
        result = self._chosen(self._run(batch), labels)[0]
        return result if isinstance(images, torch.Tensor) else result.cpu().numpy()

    def _chosen(self, probabilities: torch.Tensor, labels: bool) -> torch.Tensor:
        if not labels:
            return probabilities
        return probabilities[:, : len(self.info.classes)].argmax(1).to(torch.uint8)

    def _run(self, images: torch.Tensor) -> torch.Tensor:
        if images.is_floating_point() and images.numel():
            low, high = (extreme.item() for extreme in images.aminmax())
            if low < 0 or 0 < high <= 1:
                logger.warning(
                    "%s: takes images in 0..255, but these lie in %g..%g", self.source, low, high
                )
        with steady_inference():
            output = self.module(images.to(self.device))
        try:
            return check_probabilities(output, images)
        except ModelError as error:
            raise ModelError(f"{self.source}: {error}") from error


def save_model(
    network: nn.Module,
    info: ModelInfo,
    path: str | Path,
    *,
    portable: bool = False,
    format: str | None = None,
) -> None:
    """Export ``network`` with everything around it, see ``Segmenter``.

    Args:
        network: see ``Segmenter``; left as it is.
        info: its description.
        path: the file to write.
        portable: whether the file must do with plain torch. Otherwise the blocks of the U-Net are
            ``gsd`` operations, which the native library computes in float32 and bfloat16. Other
            formats are always so.
        format: one of ``choices.MODEL_FORMATS``, "onnx" and "bioimageio" with ``pip install
            'genselfdiff[onnx]'``; None: by the suffix, ".pt2", ".onnx" or ".zip" (bioimageio),
            TorchScript otherwise.

    Raises:
        ModelError: the network does not compile or run, its output does not have one channel per
            class, or it needs operators beyond those.
        InputError: no such format, an ending of none, or what it needs is not installed.
        OutputError: the file cannot be written.
    """
    path = Path(path)
    require_suffix(path, format)
    try:
        content = format_of(path, format).contents(network, info, portable)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    # From memory: torch ends the process where a disk is full.
    with content, atomic_file(path) as temporary, temporary.open("wb") as file:
        shutil.copyfileobj(content, file, 2**20)


def load_model(model: str | Place, device: str | torch.device | None = None) -> LoadedModel:
    """Read a model file, or a model that comes with gsd.

    Args:
        model: the name of a shipped model, or else a file of ``save_model``, or the URL of one,
            which is copied to the user's folder for caches; or a folder of ``gsd push``. A
            ``Path`` is a file or folder.
        device: "cpu", "cuda", "cuda:1", "mps", or several GPUs, "cuda:0,cuda:1"; None: the best
            there is.

    Raises:
        ModelError: missing, damaged, not one of ours, or of a newer format.
        InputError: the device is not there, or GSD_KERNELS asks for what the model cannot do on it.
    """
    source = _source_of(model)
    on_cpu_only = isinstance(source, Path) and format_of(source).on_cpu_only
    chosen, *further = choose_devices("cpu" if on_cpu_only and device is None else device)
    if on_cpu_only and chosen.type != "cpu":
        raise InputError(
            f"{source}: runs on the CPU, not on {chosen}: use --device cpu, or export a model.ts"
        )
    try:
        parts = (
            _from_weights(source, chosen)
            if has_whole_weights(source)
            else _from_file(Path(source), chosen)
        )
    except ModelError as error:
        raise ModelError(f"{source}: {error}") from error
    except RuntimeError as error:
        raise ModelError(f"{source}: damaged model file: {one_line(error)}") from error
    parts.module.eval()
    return LoadedModel(
        source,
        parts.info,
        chosen,
        parts.module,
        parts.digest,
        tuple(further),
        parts.float32_only,
    )


def _source_of(model: str | Place) -> Path | str:
    """The name of a shipped model, or the file that is read, for a URL a copy of it."""
    if not isinstance(model, Url) and catalogue.name_of(model) is not None:
        return str(model)
    place = place_of(model)
    if isinstance(place, Path):
        return place
    if place.scheme == "hf":
        raise ModelError(f"{place}: is on the Hub: 'gsd pull {place} -o model.ts' fetches it")
    try:
        return cached_copy(place)
    except GsdError as error:
        raise ModelError(str(error)) from None


def model_path(model: str | Path) -> Path:
    """The file that ``load_model`` reads for ``model``."""
    name = catalogue.name_of(model)
    return Path(model) if name is None else catalogue.weights_file(name)


def find_model(
    model: LoadedModel | str | Place | None = None, device: str | None = None
) -> LoadedModel:
    """``model`` itself, or loaded; None: the one that GSD_MODEL names, else the shipped one.

    Raises:
        ModelError: there is none, or it is not one of ours.
    """
    if isinstance(model, LoadedModel):
        return model
    named = model or os.environ.get("GSD_MODEL")
    if named:
        return load_model(named, device)
    if catalogue.name_of(DEFAULT_MODEL) is None:
        raise ModelError(
            "no model, and this installation of gsd came without one: give --model FILE or set"
            " GSD_MODEL; 'gsd train finetune' trains one and 'gsd export RUN -o model.ts' writes"
            " its file"
        )
    logger.info("model: %s, shipped with gsd; another with --model or GSD_MODEL", DEFAULT_MODEL)
    return load_model(DEFAULT_MODEL, device)


def _from_weights(model: str | Path, device: torch.device) -> ModelParts:
    if isinstance(model, str):
        catalogue.warn_of_namesake(model)
    weights = whole_weights(model)
    module = compiled_segmenter(weights.network(), weights.info, portable=False)
    check_loaded(module, device)
    return ModelParts(weights.info, module.to(device), weights.digest)


def _from_file(path: Path, device: torch.device) -> ModelParts:
    if path.is_dir():
        if (path / _RUN_SETTINGS).exists():
            raise ModelError(
                f"a run folder: 'gsd export {path} -o model.ts' makes a model file of it"
            )
        raise ModelError(
            f"a folder that holds no model: one of 'gsd push' has {WEIGHTS} and {EXTRA_FILE}, and"
            " of a run folder 'gsd export RUN -o model.ts' makes a model file"
        )
    if not path.exists():
        near = get_close_matches(str(path), catalogue.names(), 1)
        also = f"; {near[0]!r} is a model that comes with gsd" if near else ""
        raise ModelError(f"there is no such model file{also}")
    try:
        file = open_input(path)
    except InputError as error:  # which names it
        raise ModelError(str(error).removeprefix(f"{path}: ")) from error
    with file:
        return format_of(path).read(file, device)
