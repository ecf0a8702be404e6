"""What preparing tiles takes of the time in training.

    python benchmarks/loader.py [--wall] [--architectures small paper] [--steps 8]

Batches of 8 tiles of 256 pixels, as `gsd train` draws them: for stage 1 from images of 1000 x 1000
pixels, from the sample slide, and from one too large to be held in memory (the sample slide laid
beside itself); for stage 2 from such images with each policy of augmentation. First in processor
time of one thread: the fastest of a few rounds, for one tile, and as a share of a training step
(forward, loss, backward, Adam, in the precision that gsd chooses). With --wall also the share of
the run's time in which the training process, with as many threads as usual, waits for data: without
and with a worker process. That needs a machine with nothing else to do.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from PIL import Image
from table import print_rows
from torch.utils.data import DataLoader, Dataset

from genselfdiff.data.labelled.augment import POLICIES
from genselfdiff.data.labelled.crops import LabelledCrops
from genselfdiff.data.labelled.images import LabelledImages
from genselfdiff.data.labelled.pairs import find_pairs
from genselfdiff.data.tiles import UnlabelledTiles, open_sources
from genselfdiff.diffusion import NoiseSchedule
from genselfdiff.losses import P2Loss
from genselfdiff.machine import has_fast_bfloat16, keep_freed_memory
from genselfdiff.models.registry import create_model
from genselfdiff.slides import read_image

SLIDE = Path(__file__).parent.parent / "examples" / "CMU-1-Small-Region.svs"
TILE, BATCH, MPP = 256, 8, 0.5
SIDE = 1000
REPEATS = 4
ROUNDS, BATCHES = 5, 12
"""Of the processor time of loading."""

Step = Callable[[Any], None]


def write_images(folder: Path, side: int = SIDE) -> None:
    """Images with masks of what is dark in them."""
    pixels = read_image(SLIDE)
    places = [(x, y) for y in (900, 1400, 1900) for x in (0, 600, 1200)]
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for number, (x, y) in enumerate(places):
        image = pixels[y : y + side, x : x + side]
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
        Image.fromarray((image[..., 0] < 150).astype(np.uint8)).save(
            folder / "masks" / f"{number}.png"
        )


def write_large_slide(path: Path) -> None:
    """The sample slide beside itself."""
    tifffile.imwrite(
        path,
        np.tile(read_image(SLIDE), (REPEATS, REPEATS, 1)),
        tile=(240, 240),
        photometric="rgb",
        compression="jpeg",
    )


def datasets(folder: Path, length: int) -> Iterator[tuple[str, Dataset[Any]]]:
    """What is measured, by name, with so many tiles each."""
    for name, path in (
        ("stage 1, images", folder / "images"),
        ("stage 1, slide", SLIDE),
        ("stage 1, large slide", folder / "large.tif"),
    ):
        sources = open_sources([path], mpp=MPP, image_mpp=MPP)
        yield name, UnlabelledTiles(sources, mpp=MPP, tile_size=TILE, seed=0, length=length)
    images = LabelledImages(find_pairs(folder / "images", folder / "masks"), num_classes=2)
    for policy in POLICIES:
        crops = LabelledCrops(images, tile_size=TILE, seed=0, length=length, augment=policy)
        yield f"stage 2, policy {policy}", crops


def loading_cost(dataset: Dataset[Any]) -> float:
    """Processor seconds of this thread for a batch, once files are open and images held."""
    batches = iter(DataLoader(dataset, batch_size=BATCH))
    rounds = []
    for _ in range(ROUNDS):
        start = time.thread_time()
        for _ in range(BATCHES):
            next(batches)
        rounds.append((time.thread_time() - start) / BATCHES)
    return min(rounds)


def training_step(architecture: str) -> Step:
    """A function that trains on one batch, of either stage."""
    torch.manual_seed(0)
    network = create_model(architecture).to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(network.parameters())
    loss = P2Loss(NoiseSchedule.create())
    times = torch.arange(BATCH) * 100
    noise = torch.randn(BATCH, 3, TILE, TILE)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=has_fast_bfloat16(torch.device("cpu")))

    def step(batch: Any) -> None:
        tiles = batch if isinstance(batch, torch.Tensor) else batch[0]
        x = (tiles.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        optimiser.zero_grad(set_to_none=True)
        with autocast:
            value = loss(network(x, times).float(), noise, times)
        value.backward()
        optimiser.step()

    return step


def step_cost(step: Step) -> float:
    """Processor seconds of a step on one thread."""
    batch = torch.zeros(BATCH, 3, TILE, TILE, dtype=torch.uint8)
    step(batch)
    costs = []
    for _ in range(2):
        start = time.process_time()
        step(batch)
        costs.append(time.process_time() - start)
    return min(costs)


def waiting_share(step: Step, dataset: Dataset[Any], workers: int) -> float:
    """Share of the wall time spent on waiting for the next batch; the first is not timed."""
    batches = iter(DataLoader(dataset, batch_size=BATCH, num_workers=workers))
    step(next(batches))
    waited = 0.0
    start = time.perf_counter()
    before = start
    for batch in batches:
        waited += time.perf_counter() - before
        step(batch)
        before = time.perf_counter()
    return waited / (time.perf_counter() - start)


def processor_rows(architectures: list[str], folder: Path) -> Iterator[list[str]]:
    """A heading, the steps, and a row for each dataset."""
    costs = {name: step_cost(training_step(name)) for name in architectures}
    yield ["loader", "ms a tile", *(f"of a step of {name}" for name in architectures)]
    steps = (f"({cost:.2f} s)" for cost in costs.values())
    yield ["(the step of 8 tiles)", "", *steps]
    for name, dataset in datasets(folder, BATCH * ROUNDS * BATCHES):
        loading = loading_cost(dataset)
        shares = (f"{loading / cost:.2%}" for cost in costs.values())
        yield [name, f"{1e3 * loading / BATCH:.2f}", *shares]


def wall_rows(architectures: list[str], folder: Path, steps: int) -> Iterator[list[str]]:
    """A heading, and a row for each dataset."""
    kinds = [(name, workers) for name in architectures for workers in (0, 1)]
    yield ["loader", *(f"{name}, {workers} workers" for name, workers in kinds)]
    trained = {name: training_step(name) for name in architectures}
    for name, dataset in datasets(folder, BATCH * (steps + 1)):
        shares = (waiting_share(trained[kind], dataset, workers) for kind, workers in kinds)
        yield [name, *(f"{share:.2%}" for share in shares)]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", nargs="+", default=["small", "paper"])
    parser.add_argument("--wall", action="store_true")
    parser.add_argument("--steps", type=int, default=8, help="of each run in wall time")
    options = parser.parse_args()
    keep_freed_memory()
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder)
        write_large_slide(folder / "large.tif")
        print("Processor time of one thread:\n")
        torch.set_num_threads(1)
        print_rows(processor_rows(options.architectures, folder))
        if options.wall:
            torch.set_num_threads(threads)
            print(f"\nWaiting for data, share of the wall time, {threads} threads:\n")
            print_rows(wall_rows(options.architectures, folder, options.steps))
    print(f"\nload {os.getloadavg()[0]:.1f} at the end, torch {torch.__version__}")


if __name__ == "__main__":
    main()
