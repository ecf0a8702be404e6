"""Peak memory and speed of ``gsd segment`` on a large generated slide.

    python benchmarks/segmenting/memory.py [--side 40000] [--architecture convolutions]
        [--keep FOLDER]

Writes an H&E-like tiled JPEG TIFF that is tissue everywhere and a model with fresh weights,
segments in a subprocess and prints what it took. By default the model is three convolutions, so
that the engine is what is measured; the name of an architecture measures that one.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from genselfdiff.models.model_file import save_model
from genselfdiff.models.model_info import ModelInfo
from genselfdiff.models.registry import create_model

TILE = 256
KINDS = 16

# Not ru_maxrss: a child's begins with what its parent held when it was forked.
GSD = """
import atexit, pathlib, re, runpy
status = pathlib.Path("/proc/self/status")
atexit.register(lambda: print(re.search(r"VmHWM:.*", status.read_text())[0]))
runpy.run_module("gsd", run_name="__main__")
"""


class Convolutions(nn.Module):
    """The least that deserves the name of a segmenter; either class on half of the tissue."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 2, 2, stride=2),
        )
        tile = torch.from_numpy(tissue_tile(0)).permute(2, 0, 1)[None]
        with torch.no_grad():
            logits = self.layers(tile / 127.5 - 1)
            self.layers[-1].bias[1] += (logits[:, 0] - logits[:, 1]).median()

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def tissue_tile(seed: int) -> NDArray[np.uint8]:
    """(TILE, TILE, 3): violet nuclei on uneven pink, continuous where it meets itself."""
    random = np.random.default_rng(seed)

    def smooth(sigma: float) -> NDArray[np.float64]:
        field = ndimage.gaussian_filter(random.standard_normal((TILE, TILE)), sigma, mode="wrap")
        return (field - field.mean()) / field.std()

    nuclei = (smooth(4) > 1.2)[..., None]
    eosin = np.array((222, 150, 190)) + smooth(12)[..., None] * np.array((8, 18, 10))
    haematoxylin = np.array((95, 60, 140)) + smooth(2)[..., None] * 12
    colour = np.where(nuclei, haematoxylin, eosin) + random.normal(0, 5, (TILE, TILE, 1))
    return colour.clip(0, 255).astype(np.uint8)


def write_slide(path: Path, side: int, compression: str = "jpeg") -> None:
    """H&E-like tissue everywhere, ``side`` pixels wide and high; jpeg or deflate."""
    tiles = [tissue_tile(seed) for seed in range(KINDS)]
    random = np.random.default_rng(0)
    count = (-(-side // TILE)) ** 2

    def stream() -> Iterator[NDArray[np.uint8]]:
        for _ in range(count):
            yield tiles[random.integers(KINDS)]

    tifffile.imwrite(
        path,
        stream(),
        shape=(side, side, 3),
        dtype=np.uint8,
        tile=(TILE, TILE),
        photometric="rgb",
        compression=compression,
        predictor=compression == "deflate",
        bigtiff=True,
        resolution=(20_000, 20_000),
        resolutionunit="CENTIMETER",
    )


def write_model(
    path: Path, architecture: str, tile_size: int, mpp: float = 0.5, *, portable: bool = False
) -> None:
    """A model with fresh weights: "convolutions", or the name of an architecture."""
    torch.manual_seed(0)
    network = (
        Convolutions()
        if architecture == "convolutions"
        else create_model(architecture, out_channels=2)
    )
    info = ModelInfo(
        classes=("background", "nucleus"),
        colors=((0, 0, 0), (255, 0, 0)),
        mpp=mpp,
        tile_size=tile_size,
        input_scaling="minus_one_one",
    )
    save_model(network, info, path, portable=portable)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=40_000)
    parser.add_argument("--architecture", default="convolutions")
    parser.add_argument("--tile-size", type=int, default=256)
    parser.add_argument("--model-mpp", type=float, default=0.5, help="the slide has 0.5")
    parser.add_argument("--keep", type=Path, help="folder for the files, kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        slide = folder / f"slide_{options.side}.tif"
        model, mask = folder / "model.ts", folder / "mask.tif"
        if not slide.exists():
            write_slide(slide, options.side)
        write_model(model, options.architecture, options.tile_size, options.model_mpp)
        command = ["segment", str(slide), "-o", str(mask), "--model", str(model), "--overwrite"]
        print(f"{slide.stat().st_size / 1e6:.0f} MB slide: gsd {' '.join(command)}", flush=True)
        begin = time.perf_counter()
        run = [sys.executable, "-c", GSD, *command]
        told = subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True).stdout
        seconds = time.perf_counter() - begin
        summary, _, peak = told.rpartition("VmHWM:")
        print(summary, end="")
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(
            f"{options.side} x {options.side}, {options.architecture}: peak RSS"
            f" {int(peak.split()[0]) / 2**20:.2f} GiB, {seconds:.0f} s,"
            f" {options.side**2 / 1e6 / seconds:.2f} Mpx/s,"
            f" {used.ru_utime + used.ru_stime:.0f} CPU s on {os.cpu_count()} cores,"
            f" torch {torch.__version__}, mask {mask.stat().st_size / 1e6:.1f} MB"
        )


if __name__ == "__main__":
    main()
