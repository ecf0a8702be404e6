"""Does `gsd suggest` leave out fields with artefacts, and what else does it leave out?

    python benchmarks/unknown/left_out.py IMAGES [--size 250] [--mpp 0.25] [--repeats 3]

Each image of the folder IMAGES is a field. A tenth of them, drawn with --seed, gets one artefact of
``artefacts.py``; what tissue looks like is known from the fields alone. Printed is, for each
artefact, the share of the painted fields that are left out, and of the others.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tifffile
from artefacts import ARTEFACTS

from genselfdiff.slides import find_slides, read_image
from genselfdiff.suggesting.candidates import Search, find_candidates


def main() -> None:
    """Paint, look and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("--size", type=float, default=250.0, help="of a field in um")
    parser.add_argument("--mpp", type=float, default=0.25)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    images = find_slides([options.images])
    search = Search(options.size, len(images), options.seed, options.mpp)
    for name, paint in ARTEFACTS.items():
        painted, others = [], []
        for repeat in range(options.repeats):
            random = np.random.default_rng((options.seed, repeat))
            chosen = random.choice(len(images), max(len(images) // 10, 1), replace=False)
            with TemporaryDirectory() as folder:
                paths = list(images)
                for index in chosen:
                    paths[index] = Path(folder, f"{index}.tif")
                    tifffile.imwrite(paths[index], paint(read_image(images[index]), random)[0])
                kept = {field.slide for field in find_candidates(paths, search, None)}
            left_out = np.array([path not in kept for path in paths])
            painted += left_out[chosen].tolist()
            others += np.delete(left_out, chosen).tolist()
        print(
            f"{name:14} {np.mean(painted):4.0%} of {len(painted)} painted fields left out,"
            f" {np.mean(others):4.0%} of {len(others)} others",
            flush=True,
        )


if __name__ == "__main__":
    main()
