"""Whole networks with our convolutions against the same with torch's.

    python benchmarks/convolutions/networks.py WHAT NETWORK TILE BATCH [float32|bfloat16] [ROUNDS]

WHAT is one of

    inference  the exported network, in both precisions unless one is named, with packed weights and
               without, and in plain torch throughout
    training   the gradients of all weights, in float32 unless named, under autocast in bfloat16
    memory     the same, and the most memory that each form's process had
    error      of each 3x3 convolution of the shipped model NETWORK that ours is taken for, against
               float64, on what the network makes of tiles of tissue

NETWORK as for layers.py. One thread, process CPU time. After a first round that is not
counted the forms take turns, and what is told is the best of each and the median of the ratios of a
round. Instruction sets are chosen as for layers.py.
"""

import copy
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, median

import torch
import torch.nn.functional as F
from layers import created
from torch import nn

from genselfdiff.kernels import conv3x3, native
from genselfdiff.kernels.conv3x3 import reference as reference_3x3
from genselfdiff.kernels.conv4x4 import reference as reference_4x4
from genselfdiff.kernels.conv4x4.op import conv4x4
from genselfdiff.kernels.convolution_rules import LEAST_PIXELS
from genselfdiff.machine import keep_freed_memory
from genselfdiff.models.convolutions import Conv3x3, Enlarge, Halve
from genselfdiff.models.export import for_export
from genselfdiff.models.packing import pack_weights
from genselfdiff.models.shipped.weights import read_weights
from genselfdiff.models.torchscript import script
from genselfdiff.slides import read_image

TISSUE = Path(__file__).parents[2] / "tests" / "reference" / "nuclei_dermis.png"
Run = Callable[[], torch.Tensor]


def images(batch: int, tile: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random ones, and their time steps."""
    x = torch.randn(batch, 3, tile, tile).contiguous(memory_format=torch.channels_last)
    return x, torch.zeros(batch, dtype=torch.int64)


def exported(network: str, tile: int, batch: int, precisions: Sequence[str]) -> dict[str, Run]:
    """The network as the engine runs it, by precision and whose convolutions it has."""
    x, t = images(batch, tile)
    model = created(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fused, portable = (script(for_export(model, portable=choice)) for choice in (False, True))
    runs: dict[str, Run] = {}
    for precision in precisions:
        dtype = getattr(torch, precision)
        module = copy.deepcopy(fused).to(dtype)
        packed = copy.deepcopy(module)
        pack_weights(packed)
        plain = copy.deepcopy(portable).to(dtype)
        for whose, form in (("torch's", module), ("ours", packed), ("all torch's", plain)):

            def run(form: nn.Module = form, dtype: torch.dtype = dtype) -> torch.Tensor:
                with torch.inference_mode():
                    y: torch.Tensor = form(x.to(dtype), t)
                    return y.argmax(1)

            runs[f"{whose}, {precision}"] = run
    return runs


def training(network: str, tile: int, batch: int, precision: str) -> dict[str, Run]:
    """The gradients of all weights, by whose convolutions the network has."""
    x, t = images(batch, tile)
    model = created(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")

    def run(ours: bool) -> torch.Tensor:
        for module in model.modules():
            if isinstance(module, Conv3x3):
                module.conv3x3 = conv3x3 if ours else reference_3x3.conv3x3
            elif isinstance(module, (Halve, Enlarge)):
                module.conv4x4 = conv4x4 if ours else reference_4x4.conv4x4
        model.zero_grad(set_to_none=True)
        with autocast:
            loss = model(x, t).float().square().mean()
        loss.backward()
        return loss.detach()

    return {"torch's": lambda: run(False), "ours": lambda: run(True)}


def compare(runs: dict[str, Run], rounds: int) -> None:
    """Time them in turn, the first being what the others are measured by."""
    results = {name: run() for name, run in runs.items()}
    first = next(iter(runs))
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.process_time()
            run()
            times[name].append(time.process_time() - start)
    for name, taken in times.items():
        ratio = median(a / b for a, b in zip(times[first], taken, strict=True))
        apart = (results[name] != results[first]).sum().item()
        labels = f", {apart} other labels" if results[name].dim() else ""
        print(f"{name}: {min(taken):.3f} s, {ratio:.2f} times as fast{labels}")


def memory(network: str, tile: int, batch: int, precision: str) -> None:
    """The most memory of a process that takes two training steps, for each form."""
    for whose in ("torch's", "ours"):
        program = [sys.executable, __file__, whose, network, str(tile), str(batch), precision]
        subprocess.run(program, check=True)


def error(name: str, side: int, batch: int) -> None:
    """Print the relative errors, in the norm, of the model's 3x3 convolutions."""
    network = read_weights(name).network().eval()
    network = network.to(memory_format=torch.channels_last)
    tile = read_image(TISSUE)[:side, :side] / 127.5 - 1
    x = torch.from_numpy(tile).float().permute(2, 0, 1)[None].repeat(batch, 1, 1, 1)
    errors: list[tuple[float, float]] = []

    def see(module: nn.Conv2d, given: tuple[torch.Tensor], _: torch.Tensor) -> None:
        weight, bias = module.weight, module.bias
        assert bias is not None
        if given[0].numel() // given[0].shape[1] < LEAST_PIXELS:
            return
        exact = F.conv2d(given[0].double(), weight.double(), bias.double(), padding=1)
        ours = torch.ops.gsd.conv3x3(given[0], weight, bias, None)
        direct = F.conv2d(given[0], weight, bias, padding=1)
        off = [((y.double() - exact).norm() / exact.norm()).item() for y in (ours, direct)]
        errors.append((off[0], off[1]))

    for module in network.modules():
        if isinstance(module, Conv3x3):
            module.register_forward_hook(see)
    with torch.no_grad():
        t = torch.zeros(batch, dtype=torch.int64)
        network(x.contiguous(memory_format=torch.channels_last), t)
    ours, direct = zip(*errors, strict=True)
    most = max(a / b for a, b in errors)
    print(f"{len(errors)} layers: ours {mean(ours):.2g}, the direct sum {mean(direct):.2g};")
    print(f"in a layer at most {most:.2f} times as much")


def main(what: str, network: str, tile: int, batch: int, wanted: str = "", rounds: int = 3) -> None:
    """Do what is asked for."""
    torch.set_num_threads(1)
    keep_freed_memory()
    precision = wanted or "float32"
    if what in ("torch's", "ours"):
        run = training(network, tile, batch, precision)[what]
        run(), run()
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        return print(f"{what}: {most:.2f} GiB")
    print(f"{what} of {network}, {tile} pixels, batch {batch}, kernels of {native.selected_isa()}")
    if what == "error":
        error(network, tile, batch)
    elif what == "memory":
        memory(network, tile, batch, precision)
    elif what == "inference":
        precisions = [wanted] if wanted else ["float32", "bfloat16"]
        compare(exported(network, tile, batch, precisions), rounds)
    elif what == "training":
        compare(training(network, tile, batch, precision), rounds)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    task, of, size, count, *rest = sys.argv[1:]
    main(task, of, int(size), int(count), *rest[:1], *map(int, rest[1:]))
