"""Which implementation of an operation runs: the environment variable GSD_KERNELS, or the best.

``auto`` (the default) takes the fastest implementation for the tensor's device and dtype and is
plain torch where there is none. Any other choice runs as named or is an error that says why not.
With ``reference`` from the start, the native library is not even loaded: the graph of an exported
model calls the operations by name and runs on what torch has for them.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from genselfdiff.errors import InputError
from genselfdiff.kernels import native

CHOICES = ("auto", "reference", "cpp", "triton", "cuda")

_library = torch.library.Library("gsd", "FRAGMENT")  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Operation:
    """An operation of the ``gsd`` namespace and what it has native implementations for.

    Attributes:
        name: as in ``torch.ops.gsd.<name>``.
        cpp_dtypes: dtypes that the C++ CPU kernel takes.
    """

    name: str
    cpp_dtypes: frozenset[torch.dtype]

    def backend(
        self, device: torch.device, dtype: torch.dtype, obstacle: str = "", *, detour: bool = False
    ) -> str:
        """``cpp`` or ``reference`` for a tensor of that device and dtype.

        Args:
            device: where the operation is to run.
            dtype: of its main argument.
            obstacle: what else keeps the native kernel from running, in words; empty: nothing.
            detour: the native kernel could run, but plain torch is faster.

        Raises:
            InputError: GSD_KERNELS or GSD_CPU_ISA asks for what is unknown or cannot run.
        """
        return _backend(self.name, self.cpp_dtypes, device.type, dtype, obstacle, detour)

    def check_scripted(self, device: torch.device) -> None:
        """Raise where GSD_KERNELS asks for what a TorchScript call of the operation cannot do.

        Torch gives such a call to the native kernel whenever that is loaded.

        Raises:
            InputError: as `backend`, or plain torch is asked for too late.
        """
        chosen = self.backend(device, torch.float32)
        obstacle = _cpp_obstacle(self.name, self.cpp_dtypes, device.type, torch.float32)
        if chosen == "reference" and not obstacle:
            raise InputError(
                "GSD_KERNELS=reference: exported models obey it only if it is set before"
                " genselfdiff is imported"
            )

    def register(self, schema: str, plain: Callable[..., Any], shapes: Callable[..., Any]) -> None:
        """Make the operation callable wherever the native library does not.

        Args:
            schema: what follows the name in csrc/ops.cpp; used where that is not loaded.
            plain: plain-torch implementation with the operation's own signature.
            shapes: the same for fake tensors: results of the right shape and dtype, no values.
        """
        if not native.available():
            _library.define(self.name + schema)  # type: ignore[no-untyped-call]
        # With a C++ kernel for the CPU, this one serves all the other devices.
        _library.impl(  # type: ignore[no-untyped-call]
            self.name, plain, "CompositeExplicitAutograd"
        )
        torch.library.register_fake(f"gsd::{self.name}", shapes, lib=_library)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _backend(
    name: str,
    cpp_dtypes: frozenset[torch.dtype],
    device: str,
    dtype: torch.dtype,
    obstacle: str,
    detour: bool,
) -> str:
    choice = os.environ.get("GSD_KERNELS") or "auto"
    if choice not in CHOICES:
        raise InputError(f"GSD_KERNELS={choice} is unknown; choose one of: {', '.join(CHOICES)}")
    if choice == "reference":
        return "reference"
    obstacle = obstacle or _cpp_obstacle(name, cpp_dtypes, device, dtype)
    if choice in ("triton", "cuda"):
        obstacle = f"{name} has no {choice} implementation"
    if choice != "auto" and obstacle:
        raise InputError(f"GSD_KERNELS={choice}: {obstacle}; use GSD_KERNELS=auto")
    if obstacle or (detour and choice == "auto"):
        return "reference"
    native.selected_isa()
    return "cpp"


def _cpp_obstacle(
    name: str, cpp_dtypes: frozenset[torch.dtype], device: str, dtype: torch.dtype
) -> str:
    """Why the C++ kernel cannot take such a tensor; empty where it can."""
    if not native.available():
        return f"there are no native kernels ({native.problem()}; gsd info tells more)"
    if device != "cpu":
        return f"the C++ kernel of {name} runs on the cpu, not on {device}"
    if dtype not in cpp_dtypes:
        return f"the C++ kernel of {name} does not take {str(dtype).removeprefix('torch.')}"
    return ""
