"""Segmenting a slide on a server whose answers are late, beside the same slide on a disk.

python benchmarks/storage/remote_slides.py [--side 16384] [--latency 20] [--rounds 5] [--s3]

With --s3 the server is read by its protocol, through s3fs, else by that of web servers. The model
is one multiplication a pixel, so that reading and decoding the slide is nearly all of it. Rounds go
in turn, here and there; the ratio of each pair is of one run.
"""

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import tifffile
import torch
from fsspec import get_filesystem_class
from numpy.typing import NDArray
from torch import nn

from genselfdiff import open_slide, segment
from genselfdiff.models.model_file import LoadedModel, load_model, save_model
from genselfdiff.models.model_info import ModelInfo
from genselfdiff.slides import read_image

SAMPLE = Path(__file__).parents[2] / "examples" / "CMU-1-Small-Region.svs"
TILE = 256
WINDOW = 512

Work = Callable[[str | Path, Path, LoadedModel], None]


class Darkness(nn.Module):
    """Class 1 where green is dark: the least that a model can do."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(50.0))

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        green = self.scale * x[:, 1:2]
        return torch.cat((green, -green), dim=1)


def least_model(folder: Path) -> LoadedModel:
    info = ModelInfo(
        classes=("background", "dark"),
        colors=((0, 0, 0), (255, 0, 0)),
        mpp=0.5,
        tile_size=512,
        input_scaling="minus_one_one",
        architecture={"name": "darkness"},
        training={},
        licence="CC0-1.0",
    )
    save_model(Darkness(), info, folder / "least.ts")
    return load_model(folder / "least.ts")


def write_slide(path: Path, side: int) -> None:
    """The sample slide, repeated to ``side`` x ``side`` pixels in JPEG tiles, with one level."""
    sample = read_image(SAMPLE)

    def tiles() -> Iterator[NDArray[np.uint8]]:
        for y in range(0, side, TILE):
            for x in range(0, side, TILE):
                top, left = y % (sample.shape[0] - TILE), x % (sample.shape[1] - TILE)
                yield sample[top : top + TILE, left : left + TILE]

    tifffile.imwrite(
        path,
        tiles(),
        bigtiff=True,
        shape=(side, side, 3),
        dtype=np.uint8,
        tile=(TILE, TILE),
        photometric="rgb",
        compression="jpeg",
        resolution=(20_000, 20_000),
        resolutionunit="CENTIMETER",
    )


def segmenting(slide: str | Path, folder: Path, model: LoadedModel) -> None:
    segment(slide, folder / "mask.tif", model, tissue=False, overwrite=True, progress=False)


def reading(slide: str | Path, folder: Path, model: LoadedModel) -> None:
    """Read what segmenting reads, in its order, in one thread."""
    with open_slide(slide) as source:
        view = source.at_mpp(0.5)
        view.hold_rows(view.width, WINDOW)
        corners = [*range(0, view.width - WINDOW, 3 * WINDOW // 4), view.width - WINDOW]
        windows = [(x, y, WINDOW, WINDOW) for y in corners for x in corners]
        view.expect(windows)
        for window in windows:
            if not window[0]:
                view.forget_above(window[1])
            view.read(*window)


def speed(work: Work, slide: str | Path, folder: Path, model: LoadedModel, side: int) -> float:
    """Megapixels a second."""
    begin = time.perf_counter()
    work(slide, folder, model)
    return side * side / 1e6 / (time.perf_counter() - begin)


def measure(work: Work, side: int, latency: float, rounds: int, s3: bool) -> None:
    """Print the speed of ``work``, here and there in turn."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, slide = least_model(folder), folder / "slide.tif"
        write_slide(slide, side)
        with subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("slow_server.py")), slide, str(latency)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as server:
            assert server.stdin is not None
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            if s3:
                endpoint, bucket, name = url.rsplit("/", 2)
                os.environ["AWS_ENDPOINT_URL"] = endpoint
                get_filesystem_class("s3").clear_instance_cache()  # it knows the last server
                url = f"s3://{bucket}/{name}"
            here, there = [], []
            for _ in range(rounds):
                here.append(speed(work, slide, folder, model, side))
                there.append(speed(work, url, folder, model, side))
            server.stdin.close()
            requests, sent = map(int, server.stdout.readline().split())
        size = slide.stat().st_size
    ratios = sorted(b / a for a, b in zip(here, there, strict=True))
    scheme = url.partition(":")[0]
    print(f"{work.__name__}, {scheme}: {side} x {side} px, {size / 1e6:.0f} MB, {latency:g} ms")
    print(f"  from disk {median(here):.1f} Mpx/s ({min(here):.1f} to {max(here):.1f})")
    print(f"  by URL    {median(there):.1f} Mpx/s ({min(there):.1f} to {max(there):.1f})")
    print(f"  ratio {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    print(f"  a round: {requests / rounds:.0f} requests, {sent / rounds / size:.3f} times the file")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=16384, help="of the slide in pixels")
    parser.add_argument("--latency", type=float, default=20, help="of an answer in milliseconds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--s3", action="store_true", help="read s3:// instead of http://")
    arguments = parser.parse_args()
    os.environ |= {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "secret"}
    os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
    logging.getLogger("genselfdiff").setLevel(logging.ERROR)
    for work in (reading, segmenting):
        measure(work, arguments.side, arguments.latency, arguments.rounds, arguments.s3)


if __name__ == "__main__":
    main()
