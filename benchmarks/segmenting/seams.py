"""Whether the tiles of ``gsd segment`` show in its masks.

    python benchmarks/segmenting/seams.py MODEL IMAGE... [--peers-python PYTHON]

Each image (a TIFF that tells its resolution, or with --mpp) is segmented at that of the model, and
predicted a second time with 75 % overlap, blended with Hann windows: the reference. Counted are
the pixels whose labels differ, near the lines where one tile hands over to the next and
elsewhere. With a Python that has MONAI, its SlidingWindowInferer with Gaussian blending is counted
as well, at the same tile and overlap on the same pixels; the model must then be a portable one.
"""

import argparse
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray

from genselfdiff.inference.predictor import Predictor
from genselfdiff.inference.tiles import mirror_to, tile_axis, to_batch
from genselfdiff.masks import MaskReader
from genselfdiff.models.model_file import load_model
from genselfdiff.segmenting.one_slide import segment
from genselfdiff.slides import open_slide

NEAR = 4
"""Pixels on either side of a line between tiles."""
PROGRAM = Path(__file__).with_name("program.py")
Labels = NDArray[np.uint8]


def reference(predictor: Predictor, image: NDArray[np.uint8], tile: int) -> Labels:
    """Labels with 75 % overlap; beyond its edges the image is mirrored, so that all are alike."""
    height, width = image.shape[:2]
    rows, columns = (-(-side // 8) * 8 for side in (height, width))
    image = mirror_to(image, rows, columns)
    margin = 3 * tile // 4
    wide = np.pad(image, ((margin, margin + tile), (margin, margin + tile), (0, 0)), mode="reflect")
    hann = torch.hann_window(tile, periodic=False) + 1e-3
    window = torch.outer(hann, hann)
    total = torch.zeros(len(predictor.model.info.classes), *wide.shape[:2])
    for y in range(0, rows + margin, tile // 4):
        for x in range(0, columns + margin, tile // 4):
            pixels = to_batch([wide[y : y + tile, x : x + tile]])
            total[:, y : y + tile, x : x + tile] += predictor(pixels)[0] * window
    labels = total.argmax(0).to(torch.uint8).numpy()
    return labels[margin : margin + height, margin : margin + width]


def borders(length: int, tile: int, overlap: float) -> NDArray[np.bool_]:
    """Which pixels of an axis are near the middle of where two tiles overlap."""
    axis = tile_axis(length, tile, overlap)
    near = np.zeros(length, np.bool_)
    for before, after in zip(axis.starts, axis.starts[1:], strict=False):
        middle = (before + axis.tile + after) // 2
        near[max(middle - NEAR, 0) : middle + NEAR] = True
    return near


def mask_of(path: Path) -> Labels:
    with MaskReader(path) as reader:
        return np.concatenate(list(reader.bands()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--mpp", type=float, help="of the images")
    parser.add_argument("--tile", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--peers-python")
    options = parser.parse_args()
    predictor = Predictor(load_model(options.model, "cpu"), options.precision)
    print("| tile | program | equal pixels | Dice | prevalence | at borders x elsewhere |")
    print("|---|---|---|---|---|---|")
    for tile in options.tile:
        counts: dict[str, NDArray[np.int64]] = defaultdict(lambda: np.zeros(7, np.int64))
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            for image in options.images:
                with open_slide(image, mpp=options.mpp) as slide:
                    view = slide.at_mpp(predictor.model.info.mpp)
                    seen = view.read(0, 0, view.width, view.height)
                cut = folder / "seen.tif"
                resolution = 1e4 / (predictor.model.info.mpp or 1)
                tifffile.imwrite(
                    cut,
                    seen,
                    photometric="rgb",
                    tile=(256, 256),
                    resolution=(resolution, resolution),
                    resolutionunit="CENTIMETER",
                )
                wanted = reference(predictor, seen, tile)
                near = borders(view.height, tile, options.overlap)[:, None] | borders(
                    view.width, tile, options.overlap
                )
                mask = folder / "gsd.tif"
                segment(
                    cut,
                    mask,
                    predictor,
                    tile_size=tile,
                    overlap=options.overlap,
                    tissue=False,
                    overwrite=True,
                    progress=False,
                )
                masks = {"gsd": mask_of(mask)}
                if options.peers_python:
                    command = [options.peers_python, str(PROGRAM), "monai", str(cut)]
                    command += [str(options.model), str(folder / "monai"), f"--tile={tile}"]
                    command += [f"--overlap={options.overlap}"]
                    done = subprocess.run(command, capture_output=True, text=True, check=False)
                    if done.returncode:
                        sys.exit(done.stderr[-2000:])
                    masks["monai, gaussian"] = tifffile.imread(folder / "monai.tif")
                for name, labels in masks.items():
                    wrong = labels != wanted
                    both = ((labels > 0) & (labels == wanted)).sum()
                    counts[name] += [
                        *(wrong.sum(), wrong.size, both, (labels > 0).sum(), (wanted > 0).sum()),
                        *((wrong & near).sum(), near.sum()),
                    ]
        for name, (wrong, size, both, ours, theirs, wrong_near, near_size) in counts.items():
            elsewhere = (wrong - wrong_near) / (size - near_size)
            print(
                f"| {tile} | {name} | {100 * (1 - wrong / size):.3f} % |"
                f" {2 * both / (ours + theirs):.4f} | {100 * theirs / size:.1f} % |"
                f" {wrong_near / near_size / elsewhere:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
