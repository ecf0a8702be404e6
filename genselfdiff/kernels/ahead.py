"""Compile Triton kernels for a GPU that is not here: for the build, and to check them anywhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from genselfdiff.kernels import tiles
from genselfdiff.kernels.launching import Kernel

PTX_VERSION = 80
"""Ten times the version of PTX: CUDA 12.0's, the first that can tell all of compute capability 9.0.

Triton's own choice is the newest, which older drivers refuse.
"""


@dataclass(frozen=True)
class Launch:
    """A kernel as an operation would launch it.

    Attributes:
        name: of the kernel; also its symbol in the binary.
        grid: programs along x, y and z.
        arguments: (name, Triton's type, value) of what is passed at run time, in order. A value is
            a number, or the tensor whose address is passed.
        num_warps: a program's, of 32 threads.
        shared: bytes of dynamic shared memory.
        scratch: bytes of device memory that the kernel wants besides.
        ptx: the kernel for the GPU's own compiler.
        cubin: the kernel for the GPU itself.
    """

    name: str
    grid: tuple[int, int, int]
    arguments: tuple[tuple[str, str, Any], ...]
    num_warps: int
    shared: int
    scratch: int
    ptx: str
    cubin: bytes


class _AbsentGpu:
    """As much of a driver as Triton asks for before it launches anything."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_device(self) -> int:
        return self.capability  # Triton keeps its compiled kernels by device

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        return GPUTarget("cuda", self.capability, 32)


@contextmanager
def compiling_for(capability: int) -> Iterator[list[Launch]]:
    """Within this, launching a kernel compiles it for that GPU, and nothing runs.

    What comes out is for every driver from CUDA 12.0 on. The second of Triton's two assemblers is
    of CUDA 13 today, whose machine code older drivers do not load.

    Args:
        capability: ten times the compute capability: 80 for an A100, 90 for an H100.

    Yields:
        The launches so far.
    """
    launches: list[Launch] = []
    run = JITFunction.run

    def compile_only(kernel: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        options["ptx_version"] = PTX_VERSION
        compiled = run(kernel, *args, grid=grid, warmup=True, **options)
        types = compiled.src.signature
        values = dict(zip(kernel.arg_names, args, strict=True))
        metadata = compiled.metadata
        launches.append(
            Launch(
                name=compiled.name,
                grid=(*grid, 1, 1)[:3],
                arguments=tuple(
                    (name, kind, values[name])
                    for name, kind in types.items()
                    if kind != "constexpr"
                ),
                num_warps=metadata.num_warps,
                shared=metadata.shared,
                scratch=metadata.global_scratch_size + metadata.profile_scratch_size,
                ptx=compiled.asm["ptx"],
                cubin=compiled.asm["cubin"],
            )
        )
        return compiled

    before, assumed = triton.runtime.driver._active, tiles.assumed_capability
    tiles.assumed_capability = capability
    triton.runtime.driver.set_active(_AbsentGpu(capability))
    JITFunction.run = compile_only
    Kernel.remembers = False
    try:
        with triton.knobs.nvidia.scope():
            triton.knobs.nvidia.ptxas_blackwell = triton.knobs.nvidia.ptxas.path
            yield launches
    finally:
        JITFunction.run = run
        Kernel.remembers = True
        triton.runtime.driver._active = before
        tiles.assumed_capability = assumed


def launches_of(call: Callable[[], Any], capability: int) -> list[Launch]:
    """What ``call`` launches, compiled for that GPU; see `compiling_for`."""
    with compiling_for(capability) as launches:
        call()
    return launches
