"""The nuclei model on a slide of tissue everywhere, beside MONAI with a U-Net of InstanSeg's size.

    python benchmarks/nuclei/speed.py IMAGES [--model nuclei] [--rounds 3] [--threads 2]

IMAGES is a folder of fields at 0.25 um/px, which are laid side by side into one slide (JPEG, tiles
of 256). Both programs read it and write a mask of it: ``gsd segment`` with and without telling
nuclei apart, and MONAI's SlidingWindowInferer (as its documentation drives it, float32 and
bfloat16) with a residual U-Net of 3.7 M parameters (InstanSeg has 3.9), at the same um/px. Runs
alternate, each in a process of its own; imports, loading the model and a first prediction are not
timed. Printed are medians in level-0 pixels a second. ONEDNN_MAX_CPU_ISA, ATEN_CPU_CAPABILITY and
GSD_CPU_ISA choose lesser instruction sets for both; with those that lack bfloat16, --float32 keeps
all from it.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch

from genselfdiff.slides import read_image

MPP = 0.25
TILE = 512


def write_slide(images: Path, path: Path, fields: int) -> int:
    """Lay fields side by side; return the slide's pixels."""
    found = sorted(p for p in images.iterdir() if p.suffix in (".png", ".tif", ".jpg"))[:fields]
    across = math.isqrt(len(found))
    found = found[: len(found) // across * across]
    pixels = [read_image(p) for p in found]
    side = min(min(p.shape[:2]) for p in pixels)
    rows = [
        np.concatenate([p[:side, :side] for p in pixels[i : i + across]], axis=1)
        for i in range(0, len(pixels), across)
    ]
    slide = np.concatenate(rows)
    tifffile.imwrite(
        path,
        slide,
        photometric="rgb",
        tile=(256, 256),
        compression="jpeg",
        compressionargs={"level": 90},
        resolution=(1e4 / MPP, 1e4 / MPP),
        resolutionunit="CENTIMETER",
    )
    return slide.shape[0] * slide.shape[1]


def prepare_gsd(
    slide: Path, out: Path, model: str, precision: str, *, instances: bool
) -> Callable[[], Any]:
    """A run of gsd, and with it a table of the nuclei if they are told apart."""
    from genselfdiff.machine import keep_freed_memory

    keep_freed_memory()  # as the command does
    from genselfdiff.inference.predictor import Predictor
    from genselfdiff.models.model_file import find_model
    from genselfdiff.segmenting.one_slide import segment

    predictor = Predictor(find_model(model, "cpu"), precision)
    side = predictor.model.info.tile_size
    predictor(torch.zeros(1, 3, side, side, dtype=torch.uint8))
    return lambda: segment(
        slide, out, predictor, instances=instances, tissue=False, overwrite=True, progress=False
    )


def prepare_monai(slide: Path, out: Path, precision: str) -> Callable[[], Any]:
    """A run of MONAI."""
    from monai.inferers import SlidingWindowInferer
    from monai.networks.nets import UNet

    network = UNet(2, 3, 2, (32, 64, 128, 256, 256), (2, 2, 2, 2), num_res_units=2).eval()
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    network = network.to(dtype)
    inferer = SlidingWindowInferer((TILE, TILE), sw_batch_size=1, overlap=0.25, mode="gaussian")
    with torch.inference_mode():
        network(torch.zeros(1, 3, TILE, TILE, dtype=dtype))

    def run() -> None:
        pixels = tifffile.imread(slide)
        with torch.inference_mode():
            x = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(dtype) / 255
            labels = inferer(x, network).argmax(1)[0].to(torch.uint8).numpy()
        tifffile.imwrite(out, labels, tile=(512, 512), compression="zlib")

    return run


GSD = {"gsd, nuclei apart": True, "gsd, mask only": False}
MONAI = {"MONAI, float32": "float32", "MONAI, bfloat16": "bfloat16"}


def main() -> None:
    """Run all in turn, or in a process of its own one of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fields", type=int, default=9)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--float32", action="store_true", help="no bfloat16")
    parser.add_argument("--only", choices=[*GSD, *MONAI], help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.only:
        out = Path(options.images.parent, "out", "mask.tif")
        if options.only in MONAI:
            run = prepare_monai(options.images, out, MONAI[options.only])
        else:
            precision = "float32" if options.float32 else "auto"
            instances = GSD[options.only]
            run = prepare_gsd(options.images, out, options.model, precision, instances=instances)
        begin = time.perf_counter()
        run()
        print(json.dumps(time.perf_counter() - begin))
        return
    left_out = "bfloat16" if options.float32 else None
    programs = [*GSD, *(name for name, precision in MONAI.items() if precision != left_out)]
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    with tempfile.TemporaryDirectory() as folder:
        slide = Path(folder, "slide.tif")
        pixels = write_slide(options.images, slide, options.fields)
        Path(folder, "out").mkdir()
        for _ in range(options.rounds):
            for name, runs in seconds.items():
                runs.append(_in_a_process(name, slide, options))
    print(f"{pixels / 1e6:.1f} Mpx, {options.threads} threads")
    for name, runs in seconds.items():
        median = statistics.median(runs)
        print(f"{name:20} {pixels / 1e6 / median:6.2f} Mpx/s   {median:6.1f} s")


def _in_a_process(name: str, slide: Path, options: argparse.Namespace) -> float:
    command = [sys.executable, __file__, str(slide), "--only", name, "--model", options.model]
    command += ["--threads", str(options.threads), *(["--float32"] if options.float32 else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name}:\n{done.stderr[-2000:]}")
    return float(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
