"""What a call of each operation costs the host: all that is done before a GPU has its kernels.

    python benchmarks/host_cost.py [--device cpu|cuda] [--rounds 15]

Microseconds of process CPU time a call, the fastest of rounds in which the forms take turns, on
tensors so small that nothing is computed. With --device cpu no GPU is needed: tensors lie on the
CPU, operations run as they do for a GPU of compute capability 9.0, and the driver launches nothing.
Plain torch then computes, which the smallest tensors keep below a microsecond an operation.
"C++" is the launcher of exported models, which eager forward passes take too where the library has
the kernels; without a GPU it is called on a driver that does nothing (tests/native/fake_gpu.c).
"""

import argparse
import ctypes
import importlib
import os
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from table import print_rows
from triton.backends.compiler import GPUTarget

from genselfdiff.kernels import (
    OPERATIONS,
    add_noise,
    backends,
    conv3x3,
    group_norm_silu,
    linear_attention,
    multi_loss,
    p2_loss,
)
from genselfdiff.kernels.add_noise import reference as noise_reference
from genselfdiff.kernels.conv3x3 import reference as conv3x3_reference
from genselfdiff.kernels.conv4x4 import reference as conv4x4_reference
from genselfdiff.kernels.conv4x4.op import conv4x4
from genselfdiff.kernels.group_norm_silu import reference as norm_reference
from genselfdiff.kernels.linear_attention import reference as attention_reference
from genselfdiff.kernels.multi_loss.op import multi_loss_components
from genselfdiff.kernels.p2_loss import reference as p2_reference

CALLS = 200
"""In a round. On a GPU fewer, or its queue would be full and the host wait."""
CALLS_ON_GPU = 20
HOPPER = 90
CHANNELS = 64

Call = Callable[[], Any]


class Nothing:
    """A driver that compiles for a GPU and launches nothing."""

    def __init__(self) -> None:
        self.utils = self
        self.launcher_cls = lambda *_: lambda *_: None

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", HOPPER, 32)

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 227 * 1024}

    def load_binary(self, *_: object) -> tuple[int, int, int, int, int]:
        return 1, 1, 0, 0, 1024

    def unload_module(self, module: int) -> None: ...


@dataclass(frozen=True)
class Row:
    """An operation.

    Attributes:
        name: of it.
        ours, plain: calls of the public function, and of the same in plain torch ("otherwise").
        sources: what is differentiated, or nothing.
        launched: arguments of the operation for the launcher of C++, where it has it.
    """

    name: str
    ours: Call
    plain: Call
    sources: tuple[torch.Tensor, ...] = ()
    launched: tuple[Any, ...] = ()


def operations(device: torch.device) -> Iterator[Row]:
    """Every operation with a kernel for GPUs."""

    def ones(*size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        made = torch.ones(size, dtype=dtype, device=device)
        made = made.contiguous(memory_format=torch.channels_last) if len(size) == 4 else made
        return made.requires_grad_() if dtype.is_floating_point else made

    c = CHANNELS
    x, residual, gain, offset, shift = (
        ones(1, c, 4, 4),
        ones(1, c, 4, 4),
        ones(c),
        ones(c),
        ones(1, c),
    )
    norm = (x, gain, offset, 8, shift, residual)
    yield Row(
        "group_norm_silu",
        lambda: group_norm_silu(*norm),
        lambda: norm_reference.group_norm_silu(*norm),
        (x, gain, offset, shift, residual),
        (*norm, 1e-5),
    )
    out = (ones(c, 128, 1, 1), ones(c), ones(c), ones(c))
    attention = (x, gain, offset, ones(384, c, 1, 1), *out, 4)
    yield Row(
        "linear_attention",
        lambda: linear_attention(*attention),
        lambda: attention_reference.linear_attention(*attention),
        tuple(each for each in attention if isinstance(each, torch.Tensor)),
        (*attention, 1e-5),
    )
    logits, labels = ones(1, 3, 4, 4), ones(1, 4, 4, dtype=torch.int64)
    yield Row(
        "multi_loss",
        lambda: multi_loss(logits, labels),
        lambda: sum(multi_loss_components(logits, labels)),
        (logits,),
    )
    noise, t = torch.ones(1, 3, 4, 4, device=device), ones(1, dtype=torch.int64)
    table = torch.full((1000,), 0.5, dtype=torch.float64, device=device)
    yield Row(
        "p2_loss",
        lambda: p2_loss(logits, noise, t, table),
        lambda: p2_reference.p2_loss(logits, noise, t, table, True)[0],
        (logits,),
    )
    tiles = ones(1, 3, 4, 4, dtype=torch.uint8)
    yield Row(
        "add_noise",
        lambda: add_noise(tiles, t, table, seed=1),
        lambda: noise_reference.add_noise(tiles, t, table, 1, 0),
    )


def launch(device: torch.device) -> Row:
    """Of one kernel, by `launching.Kernel` and by Triton itself."""
    kernel = importlib.import_module("genselfdiff.kernels.p2_loss.triton").loss_kernel
    t = torch.zeros(1, dtype=torch.int64, device=device)
    table, sums = torch.ones(9, dtype=torch.float64, device=device), torch.ones(1, device=device)
    arguments = (t, table, sums, torch.ones((), device=device), 1, 1, 1, 9, 1024)
    return Row(
        "a launch; otherwise by Triton itself",
        lambda: kernel[(1,)](*arguments),
        lambda: kernel.function[(1,)](*arguments),
    )


def detours(device: torch.device) -> Iterator[tuple[str, Call]]:
    """What comes before a call; convolutions, which are torch's on GPUs, without torch's."""
    norm = next(each for each in OPERATIONS if each.name == "group_norm_silu")
    yield "choosing what runs", lambda: norm.backend(device, torch.float32)
    conv3x3_reference.conv3x3 = conv4x4_reference.conv4x4 = lambda *_: None
    x, bias = torch.empty(1, 8, 4, 4, device=device), torch.empty(8, device=device)
    weight, wide = (torch.empty(8, 8, n, n, device=device, requires_grad=True) for n in (3, 4))
    x = x.contiguous(memory_format=torch.channels_last)
    yield "conv3x3, beside torch's", lambda: conv3x3(x, weight, bias)
    yield "conv4x4, beside torch's", lambda: conv4x4(x, wide, bias, False)


def costs(forms: dict[str, Call], rounds: int, device: torch.device) -> dict[str, float]:
    """Microseconds a call of each form."""
    calls = CALLS_ON_GPU if device.type == "cuda" else CALLS
    found: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(rounds + 2):  # the first two compile, and fill the caches
        for name, call in forms.items():
            if device.type == "cuda":
                torch.cuda.synchronize()
            begin = time.process_time_ns()
            for _ in range(calls):
                call()
            found[name].append((time.process_time_ns() - begin) / calls / 1000)
    return {name: min(times[2:]) for name, times in found.items()}


def both(call: Call, sources: tuple[torch.Tensor, ...]) -> Call:
    """Forward and backward."""
    result = call().detach()
    grad = torch.ones_like(result)
    return lambda: torch.autograd.grad(call(), sources, grad)


def without_gradients(call: Call) -> Call:
    """The forward pass alone."""

    def run() -> Any:
        with torch.no_grad():
            return call()

    return run


def serve_the_cpu(library: torch.library.Library) -> None:
    """Let the GPU's kernels take tensors of the CPU, and launch nothing."""
    os.environ["GSD_KERNELS"] = "triton"
    backends.triton_devices = {"cpu", "meta"}
    torch.cuda.current_device = lambda: None  # the index of the CPU
    triton.runtime.driver.set_active(Nothing())
    for operation in OPERATIONS:
        module = importlib.import_module(f"genselfdiff.kernels.{operation.name}.op")
        reference = module.reference
        forward = getattr(reference, "forward", None) or getattr(reference, operation.name)
        directions = [(operation, forward)]
        if hasattr(module, "_BACKWARD"):
            directions.append((module._BACKWARD, reference.backward))
        for one, plain in directions:
            if one.triton:
                twin = backends._triton_twin(one, plain)
                library.impl(one.name, twin, "CPU", allow_override=True)


def launcher(folder: Path) -> Callable[[Row], Call] | None:
    """Calls of what C++ launches, on a driver that does nothing; None without such kernels."""
    if not backends.launched_from_cpp:
        return None
    source = Path(__file__).parents[1] / "tests" / "native" / "fake_gpu.c"
    quiet = folder / "quiet.c"
    quiet.write_text(f'#include "{source}"\nint quiet() {{ return 0; }}\n')
    for name in ("libcuda.so.1", "libtorch_cuda.so"):
        command = ["cc", "-O2", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", folder / name]
        subprocess.run([*command, quiet], check=True)
    cuda, _ = (ctypes.CDLL(str(folder / name)) for name in ("libcuda.so.1", "libtorch_cuda.so"))
    cuda.set_listener(cuda.quiet)
    cuda.set_generation(HOPPER // 10)
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)

    def call(row: Row) -> Call:
        kernel = torch.library.get_kernel(f"gsd::{row.name}", "CUDA")
        return without_gradients(lambda: kernel.call_boxed(keys, *row.launched))

    return call


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    device = torch.device(options.device)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    table = [["operation", "forward", "otherwise", "from C++", "both ways", "otherwise"]]
    with (
        tempfile.TemporaryDirectory() as folder,
        torch.library._scoped_library("gsd", "FRAGMENT") as library,
    ):
        from_cpp = None
        if device.type == "cpu":
            from_cpp = launcher(Path(folder))
            serve_the_cpu(library)
        for row in (*operations(device), launch(device)):
            forms = {
                "ours": without_gradients(row.ours),
                "plain": without_gradients(row.plain),
            }
            if row.launched and from_cpp:
                forms["cpp"] = from_cpp(row)
            if row.sources:
                forms["both"] = both(row.ours, row.sources)
                forms["both, plain"] = both(row.plain, row.sources)
            found = costs(forms, options.rounds, device)
            names = ("ours", "plain", "cpp", "both", "both, plain")
            cells = [f"{found[name]:.1f}" if name in found else "-" for name in names]
            table.append([row.name, *cells])
        for name, call in detours(device if device.type == "cuda" else torch.device("meta")):
            found = costs({"ours": call}, options.rounds, device)
            table.append([name, f"{found['ours']:.1f}", *["-"] * 4])
    print_rows(table)


if __name__ == "__main__":
    main()
