"""Model files in TorchScript: a program, of which only what computes is admitted."""

import io
from pathlib import Path
from typing import BinaryIO

import torch
from torch import nn

from genselfdiff.errors import ModelError
from genselfdiff.kernels import OPERATIONS
from genselfdiff.models.archive.code import check_compiled
from genselfdiff.models.archive.reading import ModelArchive, read_archive
from genselfdiff.models.formats.format import Format, ModelParts
from genselfdiff.models.model_info import EXTRA_FILE, ModelInfo
from genselfdiff.models.segmenter import compiled_segmenter
from genselfdiff.models.torchscript import without_deprecations


def archive_of(network: nn.Module, info: ModelInfo, *, portable: bool = False) -> ModelArchive:
    """A network as such a file, looked at as one that is read.

    Raises:
        ModelError: as by ``save_model``.
    """
    compiled = compiled_segmenter(network, info, portable=portable)
    needed: list[str] = torch.jit.export_opnames(compiled)  # type: ignore[no-untyped-call]
    native = [name for name in needed if name.startswith("gsd::")]
    if portable and native:
        raise ModelError(f"the exported network would need {native[0]} beside plain torch")
    saved = io.BytesIO()
    with without_deprecations():
        torch.jit.save(compiled, saved, _extra_files={EXTRA_FILE: info.to_json()})
    try:
        return read_archive(saved)
    except ModelError as error:
        raise ModelError(f"the network cannot be exported: it {error}") from error


def load_archived(archive: ModelArchive, device: torch.device) -> ModelParts:
    """The model in an archive, which is closed.

    Raises:
        ModelError: its description is none, or it does more than compute.
        InputError: GSD_KERNELS asks for what it cannot do on ``device``.
    """
    with archive.content as content:
        info = ModelInfo.from_json(archive.metadata)
        module = load_module(content, device)
    check_loaded(module, device)
    return ModelParts(info, module, archive.digest)


def check_loaded(module: torch.jit.ScriptModule, device: torch.device) -> None:
    """Raise unless a module only computes, and can do so on ``device``.

    Raises:
        ModelError, InputError: as by ``load_archived``.
    """
    needed = check_compiled(module)
    if not hasattr(module, "forward"):
        raise ModelError("has no forward method that takes images")
    for operation in OPERATIONS:
        if f"gsd::{operation.name}" in needed:
            operation.prepare_scripted(device)


def load_module(content: BinaryIO, device: torch.device) -> torch.jit.ScriptModule:
    """Load what ``read_archive`` has looked at."""
    path = Path(f"/dev/fd/{content.fileno()}")  # torch copies what it reads from Python's files
    source = str(path) if path.exists() else content
    with without_deprecations():
        module: torch.jit.ScriptModule = torch.jit.load(  # type: ignore[no-untyped-call]
            source, map_location=device
        )
    return module


def _contents(network: nn.Module, info: ModelInfo, portable: bool) -> BinaryIO:
    return archive_of(network, info, portable=portable).content


def _read(file: BinaryIO, device: torch.device) -> ModelParts:
    return load_archived(read_archive(file), device)


TORCHSCRIPT = Format("torchscript", ".ts", _contents, _read)
