"""Where our kernels of convolutions were measured to be faster than torch's.

Machine and figures: benchmarks/RESULTS.md, "Convolutions". torch's is oneDNN on channels_last.
"""

import torch

from genselfdiff.kernels import native
from genselfdiff.kernels.backends import constant_when_compiled

FASTER = {
    "avx2": (torch.float32, torch.bfloat16),
    "avx512": (torch.float32, torch.bfloat16),
    "avx512_bf16": (torch.float32, torch.bfloat16),
    "amx": (torch.float32,),
}
"""By instruction set. AMX multiplies bfloat16 faster than anything can save multiplications."""

LEAST_PIXELS = 256
"""Of a batch, with packed weights: fewer do not fill a tile's panels."""

LEAST_TRAINED_PIXELS = 2048
"""Of a batch, where weights are packed at each call, for both directions."""

FASTER_STRIDED = ("avx2",)
"""Instruction sets with which ``conv4x4`` makes the weights' gradients itself, of float32."""


def computed_in(dtype: torch.dtype) -> torch.dtype:
    """What convolutions of such tensors are computed in on a CPU, under autocast or not."""
    if dtype == torch.float64 or not torch.is_autocast_enabled("cpu"):
        return dtype
    return torch.get_autocast_dtype("cpu")


def pays(dtype: torch.dtype, pixels: int, *, packed: bool) -> bool:
    """Whether the kernel is the faster one on this CPU.

    Args:
        dtype: that is computed in.
        pixels: of a batch.
        packed: the weights are packed already.

    Raises:
        InputError: the environment variable GSD_CPU_ISA asks for what cannot be had.
    """
    return dtype in _faster() and pixels >= (LEAST_PIXELS if packed else LEAST_TRAINED_PIXELS)


def strided_pays(dtype: torch.dtype) -> bool:
    """Whether the kernel of ``conv4x4`` is the faster one on this CPU, in training.

    Raises:
        InputError: as ``pays``.
    """
    return dtype == torch.float32 and _isa() in FASTER_STRIDED


def told() -> str:
    """The rules for this CPU in words.

    Raises:
        InputError: as ``pays``.
    """
    dtypes = [str(dtype).removeprefix("torch.") for dtype in _faster()]
    if not dtypes:
        return "torch's convolutions, on this CPU"
    strided = ", and weights' gradients of 4x4" if strided_pays(torch.float32) else ""
    return (
        f"ours in {' and '.join(dtypes)} from {LEAST_PIXELS} pixels of a batch on, in training"
        f" from {LEAST_TRAINED_PIXELS}{strided}; else torch's"
    )


def _faster() -> tuple[torch.dtype, ...]:
    return FASTER.get(_isa(), ())


@constant_when_compiled
def _isa() -> str:
    return native.selected_isa()
