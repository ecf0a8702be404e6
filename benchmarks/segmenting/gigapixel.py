"""Peak memory of ``gsd segment`` on slides of 10 and 20 gigapixels.

    python benchmarks/segmenting/gigapixel.py [--width 100000] [--keep FOLDER]

Each slide is a pyramidal tiled JPEG TIFF: glass, with a band of the sample slide's tissue from edge
to edge. The model is three convolutions with four classes; tiles of 512 pixels, blended.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
import torch
from memory import GSD
from numpy.typing import NDArray
from torch import nn

from genselfdiff.models.model_file import save_model
from genselfdiff.models.model_info import ModelInfo
from genselfdiff.slides import open_slide

TILE = 256
BAND = 2560
"""Rows of tissue: five tiles of the model, of which each shares a quarter with the next."""
SAMPLE = Path(__file__).parents[2] / "examples" / "CMU-1-Small-Region.svs"


class FourClasses(nn.Module):
    """Three convolutions; four classes by colour and contrast."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 4, 2, stride=2),
        )

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return 4 * self.layers(x)


def write_slide(path: Path, width: int, height: int) -> None:
    """Levels of 1, 1/4 and 1/16, each with the band in the middle of its height."""
    with open_slide(SAMPLE) as sample:
        tissue = sample.read_level(0, 0, sample.width, sample.height)
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for step in (1, 4, 16):
            level_width, level_height = width // step, height // step
            top = (height - BAND) // 2 // step // TILE
            bottom = top + max(BAND // step // TILE, 1)
            writer.write(
                _tiles(tissue[::step, ::step], level_width, level_height, top, bottom),
                shape=(level_height, level_width, 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                photometric="rgb",
                compression="jpeg",
                subfiletype=0 if step == 1 else 1,
                resolution=(20_000 / step, 20_000 / step),
                resolutionunit="CENTIMETER",
            )


def _tiles(
    tissue: NDArray[np.uint8], width: int, height: int, top: int, bottom: int
) -> Iterator[NDArray[np.uint8]]:
    glass = np.full((TILE, TILE, 3), 244, np.uint8)
    rows, columns = (max((side - TILE) // TILE, 1) for side in tissue.shape[:2])
    for row in range(-(-height // TILE)):
        for column in range(-(-width // TILE)):
            if top <= row < bottom:
                y, x = (row - top) % rows * TILE, column % columns * TILE
                tile = np.full_like(glass, 244)
                part = tissue[y : y + TILE, x : x + TILE]
                tile[: part.shape[0], : part.shape[1]] = part
                yield tile
            else:
                yield glass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=100_000)
    parser.add_argument("--keep", type=Path, help="folder for the files, kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        torch.manual_seed(0)
        info = ModelInfo(
            classes=("background", "nucleus", "stroma", "gland"),
            colors=((0, 0, 0), (255, 0, 0), (0, 160, 0), (0, 0, 255)),
            mpp=0.5,
            tile_size=512,
            input_scaling="minus_one_one",
        )
        save_model(FourClasses(), info, folder / "model.ts")
        for height in (options.width, 2 * options.width):
            slide = folder / f"slide_{options.width}_{height}.tif"
            if not slide.exists():
                write_slide(slide, options.width, height)
            command = ["segment", str(slide), "-o", str(folder / "mask.tif")]
            command += ["--model", str(folder / "model.ts"), "--overwrite", "-q"]
            begin = time.perf_counter()
            told = subprocess.run(
                [sys.executable, "-c", GSD, *command], check=True, capture_output=True, text=True
            ).stdout
            seconds = time.perf_counter() - begin
            peak = re.search(r"VmHWM:\s*(\d+) kB", told)
            assert peak is not None
            print(told.splitlines()[0].partition(": ")[2])
            print(
                f"{options.width} x {height}: peak RSS {int(peak[1]) / 2**20:.2f} GiB,"
                f" {seconds:.0f} s, slide {slide.stat().st_size / 1e6:.0f} MB,"
                f" mask {(folder / 'mask.tif').stat().st_size / 1e6:.1f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()
