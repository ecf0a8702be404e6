"""`gsd segment` on a device: labels beside the CPU's, and a run that is killed and goes on.

    python benchmarks/gpu/masks.py --work FOLDER [--device cuda] [--side PIXELS]

The slide is the sample slide several times, or with --side a square of it. The run that is killed
writes slowly enough for that to be in the midst.
"""

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tifffile
from agreement import LEAST, dice
from loader import SLIDE
from timing import tell

from genselfdiff.masks.mask_reader import MaskReader
from genselfdiff.slides import read_image

MPP = 0.25
"""What the model was trained at; the slide's own is twice as coarse."""
CORNER = (1000, 600)
"""Row and column from which a square is cut: tissue."""
TIMES = 2
"""The slide is as many sample slides wide and high."""
ROWS = 4
"""Or as many squares high: a mask of several rows of tiles."""
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
    pixels, repeats = read_image(SLIDE), (TIMES, TIMES, 1)
    runs = {("cpu", "float32"): 0.0, (options.device, "float32"): 0.0}
    if options.side:
        row, column = CORNER
        pixels = pixels[row : row + options.side, column : column + options.side]
        repeats = (ROWS, 1, 1)
    else:
        runs[options.device, "bfloat16"] = 0.0
    slide = write(np.tile(pixels, repeats), options.work / "slide.tif")
    masks = {}
    for device, precision in runs:
        begin = time.monotonic()
        mask = options.work / f"{device}_{precision}.tif"
        masks[device, precision] = segmented(slide, mask, device, precision)
        runs[device, precision] = time.monotonic() - begin
    wanted = labels(masks["cpu", "float32"]) > 0
    for (device, precision), mask in masks.items():
        found = labels(mask) > 0
        agreement = dice(found, wanted)
        tell(
            device=device,
            precision=precision,
            mpx=wanted.size / 1e6,
            seconds=runs[device, precision],
            dice=agreement,
            pixels_that_differ=int((found != wanted).sum()),
            foreground=wanted.mean().item(),
            right=agreement >= LEAST[precision],
        )
    kill(slide, masks[options.device, "float32"], options)


def kill(slide: Path, whole: Path, options: argparse.Namespace) -> None:
    """Kill a run in the midst and let it go on: the bytes must be those of a whole one."""
    mask, journal = options.work / "killed.tif", options.work / ".killed.tif.journal"
    arguments = command(slide, mask, options.device, "float32")
    with subprocess.Popen([sys.executable, "-c", SLOWLY, *arguments]) as process:
        begin = time.monotonic()
        while not (journal.exists() and journal.stat().st_size) and process.poll() is None:
            if time.monotonic() - begin > PATIENCE:
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    midway = journal.exists() and not mask.exists()
    segmented(slide, mask, options.device, "float32")
    same = mask.read_bytes() == whole.read_bytes()
    tell(killed_midway=midway, same_bytes=same, right=midway and same)


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
