"""What a training step of `gsd train` spends its time on, after torch's profiler.

    python benchmarks/training_profile.py [--architecture paper] [--batch 4] [--device cpu]

One step of each stage in bfloat16, after some that are not counted: shares of the time in torch's
operations or, on a GPU, in its kernels; and there how often the step waits for the GPU, and the
share of the time in which the GPU has nothing to do. The profiler's own cost falls on the many
small ones. Prints a JSON record for each stage.
"""

import argparse
import re
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from loader import write_images
from timing import synchronise, tell
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import DeviceType, ProfilerActivity, profile
from training import SIDES, TILE, WARM_UP, Row, config_of

from genselfdiff import kernels
from genselfdiff.machine import keep_freed_memory
from genselfdiff.training.loop.train import batches
from genselfdiff.training.runs import prepared

KERNELS = {
    name
    for path in Path(kernels.__file__).parent.glob("*/triton*.py")
    for name in re.findall(r"def (\w+_kernel)\(", path.read_text())
}
KINDS = {
    "convolutions": ("convolution", "conv", "xmma", "cudnn", "wgrad", "dgrad"),
    "gsd's own: attention, norms, noise, losses": ("gsd::", "_gsd_", *KERNELS),
    "clipping, Adam, average": ("_foreach_", "multi_tensor", "_fused_adam_"),
    "attention of the middle": ("flash", "fmha", "scaled_dot"),
}
"""Operations and kernels that belong together, by parts of their names."""


WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
"""Calls in which the processor waits for the GPU."""


def profiled(row: Row, options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """What is told of one step."""
    with prepared(config_of(row, options, folder)) as (task, step):
        on_gpu = step.device.type == "cuda"
        tiles = iter(batches(task.dataset, step.config, step, 0))
        for number in range(WARM_UP if on_gpu else 1):
            step(next(tiles), number)
        batch = next(tiles)
        synchronise(step.device)
        further = [ProfilerActivity.CUDA] if on_gpu else []
        with profile(activities=[ProfilerActivity.CPU, *further]) as profiler:
            step(batch, WARM_UP)
            synchronise(step.device)  # one of the waits
    costs: Counter[str] = Counter()
    for event in profiler.key_averages():
        if on_gpu and (event.device_type != DeviceType.CUDA or event.is_user_annotation):
            continue  # kernels count, not who has launched them
        kinds = (kind for kind, parts in KINDS.items() if any(p in event.key for p in parts))
        cost = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        costs[next(kinds, event.key[:60])] += cost
    shares = {kind: round(cost / costs.total(), 4) for kind, cost in costs.most_common(10)}
    return gpu_figures(profiler.events()) | shares if on_gpu else shares


def gpu_figures(events: Iterable[FunctionEvent]) -> dict[str, object]:
    """Share of the time without a kernel, times that the processor waits, copies to it."""
    at_work, waits, copies = [], -1, 0
    for event in events:
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation:
            at_work.append((event.time_range.start, event.time_range.end))
            copies += "DtoH" in event.name
        waits += event.name in WAITS
    idle, end = 0.0, min(at_work)[0]
    for first, last in sorted(at_work):
        idle += max(0.0, first - end)
        end = max(end, last)
    return {"idle": idle / (end - min(at_work)[0]), "waits": waits, "copies to the host": copies}


def main() -> None:
    """Profile both stages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default="paper")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--tile", type=int, default=TILE)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(namespace=argparse.Namespace(workers=0))
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as name:
        write_images(Path(name), SIDES * options.tile)
        for stage in ("pretrain", "finetune"):
            row = Row(stage, "ours", options.batch, "bfloat16")
            tell(stage=stage, batch=row.batch, **profiled(row, options, Path(name)))


if __name__ == "__main__":
    main()
