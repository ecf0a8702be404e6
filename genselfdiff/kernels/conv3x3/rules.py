"""Where the kernel of ``conv3x3`` was measured to be faster than torch's convolution.

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


def told() -> str:
    """The rules for this CPU in words.

    Raises:
        InputError: as ``pays``.
    """
    dtypes = [str(dtype).removeprefix("torch.") for dtype in _faster()]
    if not dtypes:
        return "torch's convolutions, on this CPU"
    return (
        f"ours in {' and '.join(dtypes)} from {LEAST_PIXELS} pixels of a batch on, in training"
        f" from {LEAST_TRAINED_PIXELS}; else torch's"
    )


@constant_when_compiled
def _faster() -> tuple[torch.dtype, ...]:
    return FASTER.get(native.selected_isa(), ())
