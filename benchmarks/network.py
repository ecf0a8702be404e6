"""Inference and one training step of the "paper" network: time and memory of each form.

    python benchmarks/network.py [--device cpu] > NETWORK.jsonl

With 256 x 256 tiles, and in training without the optimiser. The forms differ in convolutions of
3x3, attention, norms and loss; all of them leave the bottleneck's softmax attention to torch's
fused one. On a CPU each row runs in a process of its own, on one thread, and memory is what the
resident set grows by to its peak, once network and input are there: unlike torch's own count it
includes what libraries allocate. On a GPU it is the most that tensors hold.
"""

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import baselines
import numpy as np
import torch
from forms import FORMATS, error, is_right
from numpy.typing import NDArray
from timing import Timer, begin_peak, peak_bytes, tell

from genselfdiff.diffusion import NoiseSchedule
from genselfdiff.kernels import p2_loss
from genselfdiff.kernels.conv3x3 import reference as conv3x3_reference
from genselfdiff.kernels.conv4x4 import reference as conv4x4_reference
from genselfdiff.kernels.group_norm_silu import reference as group_norm_silu_reference
from genselfdiff.machine import keep_freed_memory
from genselfdiff.models import convolutions, unet
from genselfdiff.models.registry import create_model

MAX_ROUNDS, MAX_SECONDS = 5, 5.0
FORMS = ("authors", "plain", "compile", "ours")

Figures = tuple[dict[str, Any], NDArray[np.float32]]
"""Of a row, and the numbers that it has computed."""


@dataclass(frozen=True)
class Row:
    """One process: a task, at a batch size and precision, in a form."""

    task: str
    batch: int
    dtype: str
    form: str
    memory_format: str
    autocast: bool = False

    @property
    def name(self) -> str:
        """The form; with what tells the authors' ones apart."""
        autocast = ", autocast" if self.autocast else ""
        return f"authors, {self.memory_format}{autocast}" if self.form == "authors" else self.form


def rows(
    batches: Sequence[int] = (1, 4), forms: Sequence[str] = FORMS, device: str = "cpu"
) -> Iterator[list[Row]]:
    """All of them, by batch and task; the first of each list is the truth for the others."""
    for batch in batches:
        for task in ("inference", "training step"):
            group = []
            for dtype in ("float32", "bfloat16"):
                key = (task, batch, dtype)
                for memory_format in FORMATS:
                    group.append(Row(*key, "authors", memory_format))
                    if dtype == "bfloat16":
                        group.append(Row(*key, "authors", memory_format, autocast=True))
                # As `gsd segment` and `gsd train` run it.
                autocast = dtype == "bfloat16" and task == "training step"
                group.append(Row(*key, "plain", "channels_last", autocast))
                # Once is enough on a CPU: to compile takes most of a minute and gains nothing.
                if key == ("inference", 1, "bfloat16") or (device, dtype) == ("cuda", "bfloat16"):
                    group.append(Row(*key, "compile", "channels_last", autocast))
                group.append(Row(*key, "ours", "channels_last", autocast))
            yield [row for row in group if row.form in forms]


@contextmanager
def operations_of(form: str) -> Iterator[None]:
    """Let the networks in this process compute by that form."""
    with ExitStack() as stack:
        if form == "authors":
            convolution = {
                "conv3x3": conv3x3_reference.conv3x3,
                "conv4x4": conv4x4_reference.conv4x4,
            }
            authors = {
                "linear_attention": baselines.linear_attention,
                "group_norm_silu": group_norm_silu_reference.group_norm_silu,
            }
            stack.enter_context(mock.patch.multiple(convolutions, **convolution))
            stack.enter_context(mock.patch.multiple(unet, **authors))
        elif form in ("plain", "compile"):
            stack.enter_context(mock.patch.dict(os.environ, GSD_KERNELS="reference"))
        yield


def prepare(
    row: Row, architecture: str, side: int, device: str = "cpu"
) -> Callable[[], list[torch.Tensor]]:
    """A function that runs the task once: to the output, or to the gradients of all weights."""
    torch.manual_seed(0)
    # Under autocast, inputs and weights are float32.
    dtype = torch.float32 if row.autocast else getattr(torch, row.dtype)
    memory_format = FORMATS[row.memory_format]
    network = create_model(architecture).to(device, dtype).to(memory_format=memory_format)
    x, noise = torch.randn(2, row.batch, 3, side, side, device=device)
    x = x.to(dtype).contiguous(memory_format=memory_format)
    schedule = NoiseSchedule.create()
    t = torch.arange(row.batch, device=device) * schedule.timesteps // row.batch
    run = torch.compile(network, dynamic=False) if row.form == "compile" else network
    autocast = torch.autocast(device, torch.bfloat16, enabled=row.autocast)
    weights = schedule.p2_weights().to(device)
    loss = baselines.p2_loss if row.form == "authors" else p2_loss

    def infer() -> list[torch.Tensor]:
        with torch.no_grad(), autocast:
            return [run(x, t)]

    def train() -> list[torch.Tensor]:
        network.zero_grad(set_to_none=True)
        with autocast:
            value = loss(run(x, t).float(), noise, t, weights)
        value.backward()
        return [p.grad for p in network.parameters() if p.grad is not None]

    return infer if row.task == "inference" else train


def in_one(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Laid end to end: by itself, the gradient of a small weight may be all rounding."""
    return torch.cat([t.float().flatten() for t in tensors])


def measure(row: Row, architecture: str, side: int) -> Figures:
    """Figures of the task, and the numbers that it computes."""
    keep_freed_memory()
    torch.set_num_threads(1)
    cpu, wall = [], []
    with operations_of(row.form):
        run = prepare(row, architecture, side)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = _resident("RssAnon")
        found = in_one(run())
        while len(cpu) < MAX_ROUNDS and sum(cpu) < MAX_SECONDS:
            begin = time.process_time(), time.perf_counter()
            run()
            cpu.append(time.process_time() - begin[0])
            wall.append(time.perf_counter() - begin[1])
    # Without the files: code counts at its first use.
    peak = _resident("VmHWM") - _resident("RssFile") - before
    return {"cpu_s": min(cpu), "wall_s": min(wall), "peak_bytes": peak}, found.numpy()


def measure_here(
    row: Row, architecture: str, side: int, device: torch.device, seconds: float
) -> Figures:
    """As on a GPU: in this process."""
    torch._dynamo.reset()
    torch.backends.cudnn.allow_tf32 = False  # float32 beside float32
    with operations_of(row.form):
        run = prepare(row, architecture, side, device.type)
        found = in_one(run()).cpu().numpy()
        begin_peak(device)
        run()
        peak = peak_bytes(device)
        taken = Timer(device, seconds)(run)
    return {"seconds": taken, "peak_bytes": peak}, found


def _resident(name: str) -> int:
    """Bytes, from the kernel's account of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return 1024 * int(line.split()[1])
    raise LookupError(name)


def measured(
    groups: Iterable[list[Row]], run: Callable[[Row], Figures]
) -> Iterator[dict[str, Any]]:
    """The record of every row, as soon as it is there."""
    for group in groups:
        truth = None
        for row in group:
            figures, array = run(row)
            found = torch.from_numpy(array)
            truth = found if truth is None else truth
            difference = error([found], [truth])
            yield {
                "task": row.task,
                "batch": row.batch,
                "dtype": row.dtype,
                "form": row.name,
                "error": difference,
                "right": is_right(difference, getattr(torch, row.dtype)),
                **figures,
            }


def main() -> None:
    """Measure every row and print its record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--architecture", default="paper")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--forms", nargs="+", default=FORMS, choices=FORMS)
    parser.add_argument("--round", type=float, default=0.3, help="seconds for each, on a GPU")
    parser.add_argument("--seconds", type=float, help="after which no row is begun")
    parser.add_argument("--one-process", action="store_true", help="as on a GPU always")
    options = parser.parse_args()
    begin = time.monotonic()
    options.one_process |= options.device == "cuda"
    sizes = {"architecture": options.architecture, "side": options.side}
    device = torch.device(options.device)
    groups = rows(options.batches, options.forms, device.type)
    # Each process is forked from one that has imported everything and done nothing.
    fresh = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(1, mp_context=fresh, max_tasks_per_child=1) as processes:

        def run(row: Row) -> Figures:
            if options.one_process:
                return measure_here(row, **sizes, device=device, seconds=options.round)
            return processes.submit(measure, row, **sizes).result()

        for record in measured(groups, run):
            tell(**record)
            if options.seconds and time.monotonic() - begin > options.seconds:
                break


if __name__ == "__main__":
    main()
