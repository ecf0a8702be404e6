"""What the Triton kernels are launched with, by GPU and shape: tiles.json, beside this file.

benchmarks/autotune.py writes that file. Sums are split where it says, so that their last bits may
differ between GPUs of other compute capability, never between two of the same.
"""

import json
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch

NARROW = 64
"""Channels up to which a program may hold whole matrices, where 16 divides them."""

assumed_capability = 90
"""Ten times the compute capability meant where there is no GPU; kernels/ahead.py sets it."""


@dataclass(frozen=True)
class Tiles:
    """How one kernel is launched.

    Attributes:
        block_t: tokens that a program holds at once.
        block_c: channels that it holds at once.
        run: tokens of a program, in all; a multiple of ``block_t``.
        group: heads of a program.
        held: whether it keeps its matrices and reads them once. ``linear_attention.query_gradient``
            goes by what ``output_sums`` has here, and then takes no ``block_c`` of its own.
        num_warps: a program's, of 32 threads.
        num_stages: how many tiles ahead memory is asked for.
    """

    block_t: int
    block_c: int
    run: int = 0
    group: int = 1
    held: bool = False
    num_warps: int = 4
    num_stages: int = 2

    @cached_property
    def options(self) -> dict[str, int]:
        """Triton's own, as a launch takes them."""
        return {"num_warps": self.num_warps, "num_stages": self.num_stages}


def capability_of(device: torch.device) -> int:
    """Ten times the major compute capability, of those that the table has."""
    if device.type == "cuda":
        major = torch.cuda.get_device_capability(device)[0]
    else:
        major = assumed_capability // 10
    return 90 if major == 9 else 80


def shape_class(channels: int) -> str:
    """``narrow`` or ``wide``."""
    return "narrow" if channels <= NARROW and channels % 16 == 0 else "wide"


def tiles(kernel: str, x: torch.Tensor) -> Tiles:
    """The entry of a kernel for an x of that device, dtype and number of channels."""
    return looked_up(kernel, x.device, x.dtype, x.shape[1], assumed_capability)


@cache
def looked_up(
    kernel: str, device: torch.device, dtype: torch.dtype, channels: int, _: int
) -> Tiles:
    """As `tiles`, which each launch asks: who changes the table has to clear what is kept."""
    name = str(dtype).removeprefix("torch.")
    return entry(kernel, capability_of(device), name, shape_class(channels))


def entry(kernel: str, capability: int, dtype: str, shape: str) -> Tiles:
    """One line of the table."""
    return Tiles(**table()[str(capability)][kernel][f"{dtype} {shape}"])


@cache
def table() -> dict[str, Any]:
    """The whole of it: by capability, kernel, and dtype with shape class."""
    found: dict[str, Any] = json.loads(Path(__file__).with_name("tiles.json").read_text())
    return found
