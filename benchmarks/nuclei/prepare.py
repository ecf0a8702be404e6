"""Lay the open nuclei sets out for training the shipped model, and hold whole images back.

    python benchmarks/nuclei/prepare.py DATA FOLDER [--without tnbc]

DATA has the folders nuinsseg, consep, tnbc and dsb2018, each with ``images`` and ``instances``.
FOLDER gets

- ``train/images`` and ``train/masks``: all images but those for the last test, some of them twice,
  and their objects' numbers; ``train/validation.txt`` names those that choose the checkpoint; and
  pictures of bare glass, which the sets lack, and on which a network that has never seen any finds
  nuclei;
- ``test/SET/images`` and ``test/SET/masks``: those that neither train nor choose anything.

Images are held back by blocks: of NuInsSeg, which lies in order of organs, ten numbers in a row; of
TNBC whole patients; of CoNSeP and DSB 2018 the published test parts.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from genselfdiff.progress import progress_bar

NUINSSEG_SCALE = 0.7
"""Nuclei of NuInsSeg are about 1.7 times as large as those of the others at the same magnification,
and blurred: they train at sizes between."""

BLOCK = 10

GLASS_IMAGES, GLASS_SIDE = 40, 256

COPIES = {"consep": 2, "tnbc": 2}
"""Crops are drawn in proportion to area, of which NuInsSeg has most: these train twice as often."""


def _nuinsseg(stem: str) -> str:
    block = (int(stem) - 1) // BLOCK % 10
    return {4: "validation", 9: "test"}.get(block, "train")


def _consep(stem: str) -> str:
    part, number = stem.split("_")
    return "test" if part == "test" else "validation" if int(number) > 24 else "train"


def _tnbc(stem: str) -> str:
    patient = stem.split("_")[0]
    return "test" if patient in ("03", "07", "10") else "validation" if patient == "05" else "train"


def _dsb2018(stem: str) -> str:
    return "test" if stem.startswith("test") else "train"


PARTS: dict[str, Callable[[str], str]] = {
    "nuinsseg": _nuinsseg,
    "consep": _consep,
    "tnbc": _tnbc,
    "dsb2018": _dsb2018,
}
"""What each set's images are for, by their names."""


def main() -> None:
    """Write the folders."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--without", choices=list(PARTS), help="leave a set out of the training")
    options = parser.parse_args()
    _lay_glass(options.folder / "train")
    validation = []
    for name, part_of in PARTS.items():
        images = sorted((options.data / name / "images").iterdir())
        if not images:
            parser.error(f"{options.data / name}: no images in it")
        for image in progress_bar(images, desc=name, progress=None):
            numbers = options.data / name / "instances" / f"{image.stem}.png"
            part = part_of(image.stem)
            if part == "test":
                _lay(options.folder / "test" / name, image.stem, image, numbers, 1.0)
            elif name != options.without:
                stem = f"{name}_{image.stem}"
                scale = NUINSSEG_SCALE if name == "nuinsseg" else 1.0
                _lay(options.folder / "train", stem, image, numbers, scale)
                if part == "validation":
                    validation.append(stem)
                    continue
                for copy in range(2, COPIES.get(name, 1) + 1):
                    _lay(options.folder / "train", f"{stem}_{copy}", image, numbers, scale)
    (options.folder / "train" / "validation.txt").write_text("\n".join(validation) + "\n")


def _lay_glass(folder: Path) -> None:
    """Write drawn pictures of bare glass: tints, shades, faint dirt, noise and JPEG's blocks."""
    for number in range(GLASS_IMAGES):
        random = np.random.default_rng(number)
        size = (GLASS_SIDE, GLASS_SIDE)
        tint = random.uniform(225, 250) + random.uniform(-6, 6, 3)
        y, x = np.indices(size) / GLASS_SIDE - 0.5
        shade = random.uniform(-8, 8) * x + random.uniform(-8, 8) * y
        dirt = np.zeros(size)
        for _ in range(random.integers(0, 12)):
            radius = random.uniform(2, 30) / GLASS_SIDE
            far = np.hypot(x - random.uniform(-0.5, 0.5), y - random.uniform(-0.5, 0.5)) / radius
            dirt -= random.uniform(2, 18) * np.exp(-(far**2))
        pixels = (tint + (shade + dirt)[..., None]) + random.normal(
            0, random.uniform(0, 3), (*size, 3)
        )
        stored = io.BytesIO()
        quality = int(random.integers(30, 95))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stored, "jpeg", quality=quality)
        with Image.open(stored) as image:
            _write(folder, f"glass_{number:02}", image, Image.new("I;16", size))


def _lay(folder: Path, stem: str, image: Path, numbers: Path, scale: float) -> None:
    """Write an image and the numbers of its objects, from 1 on, at ``scale``."""
    with Image.open(image) as file:
        pixels = file.convert("RGB")
    with Image.open(numbers) as file:
        values = np.asarray(file)
    labels = np.searchsorted(np.union1d(0, values), values)
    mask = Image.fromarray(labels.astype(np.uint16))
    if scale != 1:
        size = (round(pixels.width * scale), round(pixels.height * scale))
        pixels = pixels.resize(size, Image.Resampling.LANCZOS)
        mask = mask.resize(size, Image.Resampling.NEAREST)
    _write(folder, stem, pixels, mask)


def _write(folder: Path, stem: str, pixels: Image.Image, mask: Image.Image) -> None:
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    pixels.save(folder / "images" / f"{stem}.png")
    mask.save(folder / "masks" / f"{stem}.png")


if __name__ == "__main__":
    main()
