"""Lay GlaS out for training a model of glands, and hold whole images back.

    python benchmarks/glands/prepare.py GLAS FOLDER

GLAS has ``images`` and ``masks``, as PNG named train_1 to train_85, glands of a mask not 0. FOLDER
gets ``train`` and ``test``, each with ``images`` and ``masks``, whose values are numbers of glands,
and ``train/validation.txt``, which names the images that choose the checkpoint. A gland is what
hangs together in a mask. GlaS does not tell whose an image is: some patients may be on both sides.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage


def part_of(stem: str) -> str:
    """What the image of a name is for."""
    number = int(stem.removeprefix("train_"))
    return "test" if number % 5 == 0 else "validation" if number % 10 == 3 else "train"


def main() -> None:
    """Write the folders."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("glas", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    images = sorted((options.glas / "images").glob("train_*.png"))
    if not images:
        parser.error(f"{options.glas / 'images'}: no train_*.png in it")
    validation = []
    for image in images:
        part = part_of(image.stem)
        if part == "validation":
            validation.append(image.stem)
        folder = options.folder / ("test" if part == "test" else "train")
        for kind in ("images", "masks"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        with Image.open(image) as file:
            file.convert("RGB").save(folder / "images" / image.name)
        with Image.open(options.glas / "masks" / image.name) as file:
            numbers, _ = ndimage.label(np.asarray(file.convert("L")) > 0)
        Image.fromarray(numbers.astype(np.uint16)).save(folder / "masks" / image.name)
    (options.folder / "train" / "validation.txt").write_text("\n".join(validation) + "\n")


if __name__ == "__main__":
    main()
