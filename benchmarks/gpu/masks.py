"""`gsd segment` on a device: labels beside the CPU's, and a run that is killed and goes on.

    python benchmarks/gpu/masks.py --work FOLDER [--device cuda] [--side PIXELS]

The slide is the sample slide, or with --side a square of it. What is killed is a slide made of it
several times, in a process that writes slowly enough to be killed in the midst.
"""

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tifffile
from loader import SLIDE
from timing import tell

from genselfdiff.masks.mask_reader import MaskReader
from genselfdiff.slides import read_image

MPP = 0.25
"""What the model was trained at; the slide's own is twice as coarse."""
CORNER = (1000, 600)
"""Row and column from which a square is cut: tissue."""
TIMES = 2
"""The slide whose run is killed is as many sample slides wide and high."""
ROWS = 4
"""Or as many squares high: rows of the mask, of which some are written when it is killed."""
AGREEMENT = {"float32": 0.999, "bfloat16": 0.97}
"""Share of pixels with the CPU's label; less is wrong."""
PATIENCE = 30.0
"""Seconds until a run that is to be killed has to have begun to write."""
SLOWLY = """
import sys, time
from genselfdiff.masks import pyramid_writer
from genselfdiff.masks.bigtiff import BigTiffFile
from gsd.main import main

pyramid_writer.RECORD_SECONDS = 0.0
add = BigTiffFile.add_data
def add_slowly(self, data):
    time.sleep(0.02)
    return add(self, data)
BigTiffFile.add_data = add_slowly
main(sys.argv[1:])
"""


def main() -> None:
    """Both parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--side", type=int)
    options = parser.parse_args()
    options.work.mkdir(parents=True)
    pixels = read_image(SLIDE)
    if options.side:
        row, column = CORNER
        pixels = pixels[row : row + options.side, column : column + options.side]
        repeats: tuple[int, ...] = (ROWS, 1, 1)
        precisions = ["float32"]
    else:
        repeats, precisions = (TIMES, TIMES, 1), list(AGREEMENT)
    compare(write(pixels, options.work / "slide.tif"), options, precisions)
    kill(write(np.tile(pixels, repeats), options.work / "large.tif"), options)


def compare(slide: Path, options: argparse.Namespace, precisions: list[str]) -> None:
    """Labels beside those of float32 on the CPU."""
    wanted = labels(segmented(slide, options.work / "cpu.tif", "cpu", "float32"))
    for precision in precisions:
        begin = time.monotonic()
        mask = segmented(slide, options.work / f"{precision}.tif", options.device, precision)
        seconds = time.monotonic() - begin
        agreement = (labels(mask) == wanted).mean().item()
        tell(
            precision=precision,
            seconds=seconds,
            agreement=agreement,
            foreground=(wanted > 0).mean().item(),
            right=agreement >= AGREEMENT[precision],
        )


def kill(slide: Path, options: argparse.Namespace) -> None:
    """Kill a run in the midst and let it go on: the bytes must be those of a whole one."""
    begin = time.monotonic()
    whole = segmented(slide, options.work / "whole.tif", options.device, "auto")
    seconds = time.monotonic() - begin
    mask, journal = options.work / "killed.tif", options.work / ".killed.tif.journal"
    arguments = command(slide, mask, options.device, "auto")
    with subprocess.Popen([sys.executable, "-c", SLOWLY, *arguments]) as process:
        begin = time.monotonic()
        while not (journal.exists() and journal.stat().st_size) and process.poll() is None:
            if time.monotonic() - begin > PATIENCE:
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    midway = journal.exists() and not mask.exists()
    segmented(slide, mask, options.device, "auto")
    same = mask.read_bytes() == whole.read_bytes()
    tell(seconds=seconds, killed_midway=midway, same_bytes=same, right=midway and same)


def write(pixels: np.ndarray, path: Path) -> Path:
    """A slide of these pixels."""
    resolution = {"resolution": (1e4 / MPP, 1e4 / MPP), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(256, 256), **resolution)
    return path


def command(slide: Path, mask: Path, device: str, precision: str) -> list[str]:
    """The arguments of `gsd`."""
    how = ("--device", device, "--precision", precision, "--no-tissue", "-q")
    return ["segment", str(slide), "-o", str(mask), *how]


def segmented(slide: Path, mask: Path, device: str, precision: str) -> Path:
    """The mask, once it is there."""
    arguments = command(slide, mask, device, precision)
    subprocess.run([sys.executable, "-m", "gsd", *arguments], check=True)
    return mask


def labels(path: Path) -> np.ndarray:
    """All class indices of a mask."""
    with MaskReader(path) as mask:
        return np.concatenate(list(mask.bands()))


if __name__ == "__main__":
    main()
