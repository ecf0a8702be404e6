"""The picture of docs/choosing_fields.md: artefacts painted into a slide, and where it is unlike.

    python benchmarks/unknown/picture.py SLIDE OUT.jpg

SLIDE is `examples/`'s: known is the slide as it is.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tifffile
from artefacts import air_bubble, out_of_focus, pen
from PIL import Image

from genselfdiff.slides import open_slide
from genselfdiff.unknown.learning import known_tissue
from genselfdiff.unknown.unknown_map import map_unknown

PLACES = {
    pen: (slice(2350, 2680), slice(560, 980)),
    out_of_focus: (slice(1500, 1830), slice(850, 1270)),
    air_bubble: (slice(1900, 2300), slice(900, 1400)),
}
STEP = 4
TOP = 600
FROM, RED = 0.3, (230, 0, 30)


def main() -> None:
    """Paint, map and draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("slide", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    with open_slide(options.slide) as slide:
        pixels, mpp = slide.read_level(0, 0, slide.width, slide.height), slide.mpp
    random = np.random.default_rng(4)
    for paint, place in PLACES.items():
        pixels[place] = paint(np.ascontiguousarray(pixels[place]), random)[0]
    with TemporaryDirectory() as folder:
        painted, found = Path(folder, "painted.tif"), Path(folder, "map.tif")
        resolution = {"resolution": (1e4 / mpp,) * 2, "resolutionunit": "CENTIMETER"}
        tifffile.imwrite(painted, pixels, tile=(256, 256), photometric="rgb", **resolution)
        map_unknown(painted, found, known_tissue(options.slide))
        unknown = tifffile.imread(found)[1, TOP::STEP, ::STEP, None] / 255
    height, width = pixels.shape[0] // STEP, pixels.shape[1] // STEP
    seen = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
    shown = np.array(seen)[TOP // STEP :]
    unknown = unknown[: len(shown), :width]
    share = 0.75 * np.clip((unknown - FROM) / (1 - FROM), 0, 1)
    over = (shown * (1 - share) + np.array(RED) * share).astype(np.uint8)
    Image.fromarray(np.concatenate((shown, over), axis=1)).save(options.out, quality=80)


if __name__ == "__main__":
    main()
