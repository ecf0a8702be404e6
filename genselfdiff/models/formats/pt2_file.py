"""Model files of ``torch.export``, which need torch alone: looked at as strictly as TorchScript."""

import io
from typing import BinaryIO

import torch
from torch import nn

from genselfdiff.errors import ModelError, one_line
from genselfdiff.models.formats.exported_program import exported_program
from genselfdiff.models.formats.format import Format, ModelParts, quiet
from genselfdiff.models.formats.pt2_checks import read_program
from genselfdiff.models.model_info import EXTRA_FILE, ModelInfo


class ProgramModule(nn.Module):
    """Called as ``Segmenter`` is; a graph takes float32 alone."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) in 0..255 to (N, C, H, W) float32."""
        probabilities: torch.Tensor = self.program(x.to(torch.float32))
        return probabilities

    def train(self, mode: bool = True) -> "ProgramModule":
        """A graph is as it was exported; torch raises where one is asked for more."""
        self.training = mode
        return self


def _contents(network: nn.Module, info: ModelInfo, portable: bool) -> BinaryIO:
    """``portable`` is what a graph is in any case."""
    program = exported_program(network, info)
    saved = io.BytesIO()
    torch.export.save(program, saved, extra_files={EXTRA_FILE: info.to_json()})
    saved.seek(0)
    try:
        return read_program(saved).content
    except ModelError as error:
        raise ModelError(f"the network cannot be exported: it {one_line(error)}") from error


def _read(file: BinaryIO, device: torch.device) -> ModelParts:
    archive = read_program(file)
    info = ModelInfo.from_json(archive.metadata)
    with archive.content as content, quiet("torch.export"):
        try:
            program = torch.export.load(content).module()
        except Exception as error:  # a damaged graph raises whatever torch stumbles over
            raise RuntimeError(one_line(error)) from error
    return ModelParts(info, ProgramModule(program), archive.digest, float32_only=True)


PT2 = Format("pt2", ".pt2", _contents, _read, on_cpu_only=True)
