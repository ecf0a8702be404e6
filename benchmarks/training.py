"""Whole training steps of both stages against the authors' formulation, loading included.

    python benchmarks/training.py [--architecture paper] [--batches 8] [--steps 4] [--device cpu]

Batches of tiles of 256 pixels, read from images of 1024 x 1024 pixels, through loss and gradient to
Adam's new weights. On a CPU each row runs in a process of its own, with as many threads as usual,
and the time of a step is the median after a first that is not counted. On a GPU it is the mean of
steps that follow one another unwaited for, as in a run. Prints a JSON record for each row.

"ours" is what `gsd train` runs: the same loader and step, moving average and clipping included;
"plain" is that with GSD_KERNELS=reference, and "compile" the same by torch.compile.
"authors" are network, losses and noise as their code has them, eager, with torch's own Adam, on
patches that lie as PNG files, which Pillow decodes, flipped by torch; once as a process comes, and
once with the memory kept that is freed, as `gsd` does. Under autocast weights stay float32; "pure"
is bfloat16 throughout, which nobody should train with, but which may be the fastest.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import baselines
import numpy as np
import torch
from loader import BATCH, MPP, TILE, write_images
from network import operations_of
from PIL import Image
from table import print_rows
from timing import begin_peak, peak_bytes, synchronise, tell
from torch.utils.data import DataLoader, Dataset

from genselfdiff.diffusion import NoiseSchedule
from genselfdiff.machine import keep_freed_memory
from genselfdiff.models.registry import create_model
from genselfdiff.training.dry_run import estimate_run
from genselfdiff.training.loop.step import TrainingStep
from genselfdiff.training.loop.train import batches
from genselfdiff.training.runs import prepared
from genselfdiff.training.settings.run_config import RunConfig
from genselfdiff.training.settings.stage_configs import FinetuneConfig, PretrainConfig

FORMATS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
PRECISIONS = ("float32", "bfloat16", "pure bfloat16")
SIDES = 4
"""Of a tile, in that of an image, nearly."""
WARM_UP = 3
"""Steps before those that are measured on a GPU."""


@dataclass(frozen=True)
class Row:
    """One thing to measure.

    Attributes:
        stage: "pretrain" or "finetune".
        form: "ours", "plain", "compile" or "authors".
        batch: tiles of a step.
        precision: "float32", "bfloat16" (autocast) or "pure bfloat16".
        memory_format: key of ``FORMATS``.
        keeps_memory: freed memory stays with the process.
    """

    stage: str
    form: str
    batch: int
    precision: str
    memory_format: str = "channels_last"
    keeps_memory: bool = True


def rows(options: argparse.Namespace) -> Iterator[Row]:
    """All of them."""
    for batch in options.batches:
        for stage in ("pretrain", "finetune"):
            for form in options.forms:
                for precision in options.precisions:
                    if form != "authors":
                        if precision != "pure bfloat16":
                            yield Row(stage, form, batch, precision)
                        continue
                    for memory_format in FORMATS:
                        for keeps in (False, True) if options.device == "cpu" else (True,):
                            yield Row(stage, form, batch, precision, memory_format, keeps)


class Patches(Dataset[Any]):
    """Patches that were cut beforehand, as files, flipped at random."""

    def __init__(self, folder: Path, labelled: bool, length: int) -> None:
        self.images = sorted((folder / "patches").glob("*_image.png"))
        self.labelled = labelled
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        path = self.images[index % len(self.images)]
        flips = [axis for axis in (1, 2) if torch.rand(()) < 0.5]
        with Image.open(path) as file:
            image = torch.from_numpy(np.array(file)).permute(2, 0, 1).flip(flips).float() / 255
        if not self.labelled:
            return image * 2 - 1
        with Image.open(path.with_name(path.name.replace("image", "mask"))) as file:
            labels = torch.from_numpy(np.array(file)).flip([axis - 1 for axis in flips])
        return image, labels.long()


def write_patches(folder: Path) -> None:
    """Cut the images into patches at half a tile's distance."""
    (folder / "patches").mkdir()
    for path in sorted((folder / "images").iterdir()):
        for kind in ("image", "mask"):
            pixels = np.asarray(Image.open(folder / f"{kind}s" / path.name))
            for y in range(0, pixels.shape[0] - TILE + 1, TILE // 2):
                for x in range(0, pixels.shape[1] - TILE + 1, TILE // 2):
                    Image.fromarray(pixels[y : y + TILE, x : x + TILE]).save(
                        folder / "patches" / f"{path.stem}_{y}_{x}_{kind}.png"
                    )


def config_of(row: Row, options: argparse.Namespace, folder: Path) -> RunConfig:
    """Settings of a run of `gsd train`."""
    common = {
        "architecture": options.architecture,
        "batch_size": row.batch,
        "tile_size": options.tile,
        "steps": 10**6,
        "precision": row.precision,
        "device": options.device,
        "workers": options.workers,
    }
    if row.stage == "pretrain":
        return PretrainConfig(
            **common, data=(str(folder / "images"),), mpp=MPP, image_mpp=MPP, validation_tiles=1
        )
    return FinetuneConfig(
        **common, images=str(folder / "images"), masks=str(folder / "masks"), mpp=MPP
    )


def seconds_of_ours(row: Row, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """On a CPU as `gsd train --dry-run` measures them."""
    with operations_of(row.form), prepared(config_of(row, options, folder)) as (task, step):
        if row.form == "compile":
            torch._dynamo.reset()
            step.network.compile(dynamic=False)
        if options.one_process:
            return unwaited_for(task, step, options.steps)
        found = estimate_run(task, step, options.steps)
    return {"seconds": found.step_seconds, "waiting": found.loading_share}


def unwaited_for(task: Any, step: TrainingStep, steps: int) -> dict[str, Any]:
    """The mean of ``steps``, after some that are not counted."""
    tiles = iter(batches(task.dataset, step.config, step, 0))
    step.network.train()
    begin_peak(step.device)
    for number in range(WARM_UP):
        step(next(tiles), number)
    synchronise(step.device)
    waited, begin = 0.0, time.perf_counter()
    for number in range(WARM_UP, WARM_UP + steps):
        before = time.perf_counter()
        batch = next(tiles)
        waited += time.perf_counter() - before
        step(batch, number)
    synchronise(step.device)
    seconds = time.perf_counter() - begin
    return {
        "seconds": seconds / steps,
        "waiting": waited / seconds,
        "peak_bytes": peak_bytes(step.device),
    }


def seconds_of_authors(row: Row, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Steps as the authors' code takes them."""
    torch.manual_seed(0)
    device = torch.device(options.device)
    dtype = torch.bfloat16 if row.precision == "pure bfloat16" else torch.float32
    layout = FORMATS[row.memory_format]
    labelled = row.stage == "finetune"
    schedule = NoiseSchedule.create()
    alpha_bars, weights = (
        table.to(device) for table in (schedule.alpha_bars, schedule.p2_weights())
    )
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=row.precision == "bfloat16")
    patches = Patches(folder, labelled, row.batch * (options.steps + 1))
    batches = iter(
        DataLoader(patches, batch_size=row.batch, num_workers=options.workers or 0, shuffle=True)
    )
    times, waited = [], []
    with operations_of("authors"):
        network = create_model(options.architecture, out_channels=2 if labelled else 3)
        network.to(device, dtype).to(memory_format=layout)
        optimiser = torch.optim.Adam(network.parameters(), lr=1e-4)
        for _ in range(options.steps + 1):
            begin = time.perf_counter()
            batch = next(batches)
            waited.append(time.perf_counter() - begin)
            optimiser.zero_grad(set_to_none=True)
            if labelled:
                x, labels = (part.to(device) for part in batch)
                t = torch.zeros(len(x), dtype=torch.int64, device=device)
            else:
                x = batch.to(device)
                t = torch.randint(0, schedule.timesteps, (len(x),), device=device)
                x, noise = baselines.add_noise(x, t, alpha_bars)
            with autocast:
                found = network(x.to(dtype).contiguous(memory_format=layout), t)
            loss = (
                baselines.multi_loss(found.float(), labels)
                if labelled
                else baselines.p2_loss(found.float(), noise, t, weights)
            )
            loss.backward()
            optimiser.step()
            loss.item()
            times.append(time.perf_counter() - begin)
    return {"seconds": median(times[1:]), "waiting": median(waited[1:]) / median(times[1:])}


def measure(row: Row, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One row, in this process."""
    if row.keeps_memory:
        keep_freed_memory()
    seconds = seconds_of_authors if row.form == "authors" else seconds_of_ours
    figures = seconds(row, options, folder)
    return asdict(row) | figures | {"images/s": row.batch / figures["seconds"]}


def ratios(records: list[dict[str, Any]]) -> Iterator[list[str]]:
    """A heading, and a row for each stage and precision of ours."""
    yield ["stage", "precision", "ours, s", "images/s", "waiting"] + [
        f"authors' fastest {kind}" for kind in ("in that", "in float32", "in that, memory kept")
    ]
    for stage in ("pretrain", "finetune"):
        authors = [r for r in records if r["stage"] == stage and r["form"] == "authors"]
        for precision in ("float32", "bfloat16"):
            ours = next(
                r
                for r in records
                if (r["stage"], r["form"], r["precision"]) == (stage, "ours", precision)
            )
            same = [r for r in authors if precision in r["precision"]]
            as_it_comes = [r for r in same if not r["keeps_memory"]] or same
            single = [r for r in authors if r["precision"] == "float32"]
            single = [r for r in single if not r["keeps_memory"]] or single
            kept = [r for r in same if r["keeps_memory"]]
            cells = []
            for group in (as_it_comes, single, kept):
                best = min(group, key=lambda r: r["seconds"])
                cells.append(f"{best['seconds']:.2f} s = {best['seconds'] / ours['seconds']:.2f} x")
            yield [
                stage,
                precision,
                f"{ours['seconds']:.2f}",
                f"{ours['images/s']:.2f}",
                f"{ours['waiting']:.1%}",
                *cells,
            ]


def main() -> None:
    """Measure every row; where ours and the authors' were, print the table as well."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default="paper")
    parser.add_argument("--batches", type=int, nargs="+", default=[BATCH])
    parser.add_argument("--tile", type=int, default=TILE)
    parser.add_argument("--forms", nargs="+", default=["ours", "authors"])
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS))
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--seconds", type=float, help="after which no row is begun")
    parser.add_argument("--one-process", action="store_true", help="as on a GPU always")
    options = parser.parse_args()
    options.one_process |= options.device != "cpu"
    begin = time.monotonic()
    records = []
    # Each process is forked from one that has imported everything and done nothing.
    fresh = multiprocessing.get_context("forkserver")
    with (
        tempfile.TemporaryDirectory() as name,
        ProcessPoolExecutor(1, mp_context=fresh, max_tasks_per_child=1) as processes,
    ):
        folder = Path(name)
        write_images(folder, SIDES * options.tile)
        if "authors" in options.forms:
            write_patches(folder)
        for row in rows(options):
            if options.seconds and time.monotonic() - begin > options.seconds:
                break
            if options.one_process:
                records.append(measure(row, options, folder))
            else:
                records.append(processes.submit(measure, row, options, folder).result())
            tell(**records[-1])
    if {"ours", "authors"} <= {*options.forms} and len(options.batches) == 1:
        print(file=sys.stderr)
        print_rows(ratios(records))
    print(f"load {os.getloadavg()[0]:.1f} at the end, torch {torch.__version__}", file=sys.stderr)


if __name__ == "__main__":
    main()
