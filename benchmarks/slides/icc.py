"""What applying ICC profiles costs, and what it changes in masks.

python benchmarks/slides/icc.py

The sample slide has no profile: it is written anew with generated ones, of scanners whose colours
are those of sRGB or Adobe RGB, with several gammas.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

from genselfdiff import segment
from genselfdiff.models.model_file import find_model
from genselfdiff.slides import open_slide, read_image

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "slides" / "colours"))

from icc_profiles import ADOBE, SRGB, scanner_profile  # noqa: E402

ROUNDS = 7
PROFILES = {
    "sRGB's colours, gamma 2.2": (2.2, SRGB),
    "Adobe RGB, gamma 2.2": (2.2, ADOBE),
    "sRGB's colours, gamma 1.8": (1.8, SRGB),
    "sRGB's colours, gamma 2.6": (2.6, SRGB),
}


def seconds(path: Path, icc: bool) -> float:
    """Processor time of reading all of a slide in windows."""
    start = time.process_time()
    with open_slide(path, icc=icc) as slide:
        slide.hold_rows(slide.width, 512, 0)
        for y in range(0, slide.height, 512):
            for x in range(0, slide.width, 512):
                slide.read_level(x, y, min(512, slide.width - x), min(512, slide.height - y))
    return time.process_time() - start


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def main() -> None:
    """Print the cost of reading and segmenting, and how masks differ."""
    pixels = read_image(ROOT / "examples" / "CMU-1-Small-Region.svs")
    model = find_model("nuclei", "cpu")
    with tempfile.TemporaryDirectory() as folder:
        path, plain = Path(folder, "slide.tif"), Path(folder, "plain.tif")
        layout = {"tile": (256, 256), "compression": "jpeg", "photometric": "rgb"}
        scale = {"resolution": (1e4 / 0.499,) * 2, "resolutionunit": 3}
        for number, (name, (gamma, colours)) in enumerate(PROFILES.items()):
            profile = scanner_profile(gamma, colours)
            tifffile.imwrite(path, pixels, iccprofile=profile, **layout, **scale)
            taken = [[seconds(path, icc) for icc in (False, True)] for _ in range(ROUNDS)]
            megapixels = pixels.shape[0] * pixels.shape[1] / 1e6
            added = np.median([after - before for before, after in taken]) / megapixels
            ratio = np.median([after / before for before, after in taken])
            if number == 0:
                print(f"reading: {ratio:.2f} times as long, {1e3 * added:.1f} ms more for a Mpx")
                start = time.process_time()
                before = segment(path, plain, model, geojson=True)
                used = time.process_time() - start
                nuclei = tifffile.imread(plain) > 0
                print(f"segmenting: {1e3 * used / megapixels:.0f} ms for a Mpx")
            mask = Path(folder, f"mask{number}.tif")
            after = segment(path, mask, model, geojson=True, icc=True)
            seen = tifffile.imread(mask) > 0
            changed = np.abs(read_image(path, icc=True).astype(int) - read_image(path)).mean()
            print(
                f"{name}: colours differ by {changed:.1f} of 255, pixels by"
                f" {100 * (seen != nuclei).mean():.2f} %, Dice {dice(nuclei, seen):.3f},"
                f" nuclei {sum(before.objects.values())} and {sum(after.objects.values())}"
            )


if __name__ == "__main__":
    main()
