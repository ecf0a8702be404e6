"""Exported models on a device: how fast, and whether they find what they find on a CPU.

    python benchmarks/gpu/exported_models.py [--device cuda] [--batches 8 64 1] [--tile 512]

The nuclei model and one with fresh weights, as fused and as portable files. A time is that of
the module on tiles that lie on the device. Dice is that of the nuclei with those which the portable
file finds on the CPU in float32.
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from agreement import LEAST, dice
from loader import SLIDE
from timing import Timer, begin_peak, peak_bytes, tell

from genselfdiff.models.model_file import load_model, save_model
from genselfdiff.models.registry import create_model
from genselfdiff.models.segmenter import with_memory_format
from genselfdiff.models.shipped.weights import read_weights
from genselfdiff.models.torchscript import steady_inference
from genselfdiff.slides import read_image


def files(folder: Path, architecture: str) -> Iterator[tuple[str, str, Path]]:
    """Write and name them."""
    weights = read_weights("nuclei")
    torch.manual_seed(0)
    fresh = create_model(architecture, out_channels=weights.info.logits)
    told = replace(weights.info, architecture={"name": architecture}, size_multiple=8)
    for name, network, info in (
        ("nuclei", weights.network(), weights.info),
        (architecture, fresh, told),
    ):
        for flavour in ("fused", "portable"):
            path = folder / f"{name}_{flavour}.ts"
            save_model(network, info, path, portable=flavour == "portable")
            yield name, flavour, path


def tiles(batch: int, side: int) -> torch.Tensor:
    """(batch, 3, side, side) uint8 of the sample slide."""
    pixels = read_image(SLIDE)[600:2400]
    random = np.random.default_rng(0)
    places = [(random.integers(n - side) for n in pixels.shape[:2]) for _ in range(batch)]
    cut = [pixels[y : y + side, x : x + side] for y, x in places]
    return torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2)


def main() -> None:
    """Measure as much as there is time for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 64, 1])
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--architecture", default="paper", help="of the fresh weights")
    parser.add_argument("--seconds", type=float, help="after which nothing is begun")
    options = parser.parse_args()
    begin = time.monotonic()
    device = torch.device(options.device)
    for_each = 0.2 if device.type == "cuda" else 0.01
    checked = tiles(2, options.tile).contiguous(memory_format=torch.channels_last)
    with tempfile.TemporaryDirectory() as folder:
        found = list(files(Path(folder), options.architecture))
        wanted = {
            name: labels_of(load_model(path, "cpu").module, checked)
            for name, flavour, path in found
            if flavour == "portable"
        }
        for name, flavour, path in found:
            single = with_memory_format(load_model(path, device).module, torch.channels_last)
            modules = {"bfloat16": copy.deepcopy(single).to(torch.bfloat16), "float32": single}
            for precision, module in modules.items():
                agreement = dice(labels_of(module, checked.to(device)), wanted[name])
                for batch in options.batches:
                    if options.seconds and time.monotonic() - begin > options.seconds:
                        return
                    images = tiles(batch, options.tile).to(device)
                    images = images.contiguous(memory_format=torch.channels_last)
                    with steady_inference():
                        begin_peak(device)
                        module(images)
                        peak = peak_bytes(device)
                        seconds = Timer(device, for_each)(partial(module, images))
                    tell(
                        model=name,
                        file=flavour,
                        precision=precision,
                        batch=batch,
                        ms=1e3 * seconds,
                        mpx_per_s=images[:, 0].numel() / seconds / 1e6,
                        peak_bytes=peak,
                        dice=agreement,
                        # Fresh weights tell nothing apart.
                        right=name != "nuclei" or agreement >= LEAST[precision],
                    )


def labels_of(module: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The more probable of the two classes, on the CPU."""
    with steady_inference():
        probabilities = module(images)
    return (probabilities[:, 1] > probabilities[:, 0]).cpu()


if __name__ == "__main__":
    main()
