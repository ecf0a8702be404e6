"""The native library: where it lies, how it was built, and why it is missing where it is."""

import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch

from genselfdiff.errors import InputError

LIBRARY_NAME = "libgsd_cpu.so"
REFUSED = "GSD_KERNELS=reference asks for that"


@dataclass(frozen=True)
class NativeBuild:
    """What the native library was built with and what the kernels can use here.

    Attributes:
        library: the op library; ``torch.ops.load_library(library)`` alone makes the operations
            known to TorchScript, in a process without this package too.
        compiler: name and version.
        torch_version: the torch whose headers were used; any torch from 2.10 on runs it.
        isas: instruction sets that kernels are compiled for, the slowest first.
        cpu_features: instruction-set extensions of this CPU that matter to the kernels.
        triton_version: the Triton that the GPU kernels inside were compiled with; empty: there are
            none, because the build found no Triton.
    """

    library: Path
    compiler: str
    torch_version: str
    isas: tuple[str, ...]
    cpu_features: tuple[str, ...]
    triton_version: str


def _load() -> tuple[ModuleType | None, str]:
    """Load the op library; gives the module beside it, or None and why there is none."""
    if os.environ.get("GSD_KERNELS") == "reference":
        return None, REFUSED
    try:
        module = importlib.import_module("genselfdiff._native")
    except ModuleNotFoundError:
        return None, "this installation was made without them"
    except ImportError as error:
        return None, f"genselfdiff._native does not load: {error}"
    library = _beside(module)
    try:
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]
    except (OSError, RuntimeError) as error:
        return None, f"{library} does not load with torch {torch.__version__}: {error}"
    return module, ""


def _beside(module: ModuleType) -> Path:
    return Path(str(module.__file__)).with_name(LIBRARY_NAME)


_module, _problem = _load()


def available() -> bool:
    """Whether the native CPU operations are loaded."""
    return _module is not None


def problem() -> str:
    """Why the native operations are missing, in words; empty where they are not."""
    return _problem


def build() -> NativeBuild | None:
    """How the native library was built, or None where there is none."""
    if _module is None:
        return None
    return NativeBuild(
        library=_beside(_module),
        compiler=_module.COMPILER,
        torch_version=_module.TORCH_VERSION,
        isas=tuple(_module.ISAS),
        cpu_features=tuple(_module.cpu_features()),
        triton_version=_module.TRITON_VERSION,
    )


def selected_isa() -> str:
    """The instruction set that the native kernels use on this CPU.

    Raises:
        InputError: the environment variable GSD_CPU_ISA asks for one that cannot be had.
    """
    if _module is None:
        wanted = os.environ.get("GSD_CPU_ISA")
        if wanted:
            raise InputError(f"GSD_CPU_ISA={wanted}: there are no native kernels: {_problem}")
        return "generic"
    try:
        return str(_module.selected_isa())
    except RuntimeError as error:
        raise InputError(str(error)) from error
