"""What a worker is, and whether what it computes fits what the others do."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from genselfdiff.inference.predictor import Predictor
from genselfdiff.machine import cpu_capabilities, has_fast_bfloat16
from genselfdiff.segmenting.jobs.job import MACHINE, kernels_here
from genselfdiff.version import __version__


@dataclass(frozen=True)
class Machine:
    """What a worker tells of itself.

    Attributes:
        genselfdiff, torch, kernels: see ``Request``.
        model: digest of what it has loaded.
        device: "cpu", "cuda" or "mps".
        processor: name of the GPU, or of the CPU where torch knows that.
        precision: the one asked for; of "auto", what that may choose there.
        has_folder: it sees the folder of the run.
        gpus: that it declares as Dask's resource "GPU".
    """

    genselfdiff: str
    torch: str
    kernels: str
    model: str
    device: str
    processor: str
    precision: str
    has_folder: bool
    gpus: float

    @classmethod
    def of(cls, predictor: Predictor, *, has_folder: bool, gpus: float) -> "Machine":
        """This one, with what it has loaded."""
        device = predictor.model.device
        is_gpu = device.type == "cuda"
        name = torch.cuda.get_device_name(device) if is_gpu else cpu_capabilities().get("cpu_name")
        precision = predictor.wanted
        if precision == "auto":
            precision = "bfloat16" if has_fast_bfloat16(device) else "float32"
        return cls(
            genselfdiff=__version__,
            torch=str(torch.__version__),
            kernels=kernels_here(),
            model=predictor.model.digest,
            device=device.type,
            processor=str(name),
            precision=precision,
            has_folder=has_folder,
            gpus=gpus,
        )


def refusal_of(machine: Machine, model: str, folder: Path, first: Machine | None) -> str | None:
    """Why a worker gets no work; None: it does.

    Args:
        machine: the worker.
        model: digest of the model that was asked for.
        folder: that all must see.
        first: a worker that gets work already.
    """
    if machine.genselfdiff != __version__:
        return f"it has genselfdiff {machine.genselfdiff} instead of {__version__}: install that"
    if machine.model != model:
        return "its file of the model is another: put the same file there"
    if not machine.has_folder:
        return f"it does not see the folder {folder}: mount that there, under the same name"
    if first is not None and machine.device != first.device:
        return (
            f"it computes on {machine.device}, others on {first.device}: name one with --device,"
            " or start only workers of one kind"
        )
    return None


def differences_of(machine: Machine, first: Machine) -> Iterator[tuple[str, str, str]]:
    """In what two workers differ that can change a few pixels: name, and the values of both."""
    for name in (*MACHINE, "processor", "precision"):
        here, there = getattr(machine, name), getattr(first, name)
        if here != there:
            yield name, here, there
