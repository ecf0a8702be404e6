"""A large slide of the sample's tissue, and a mask of a million nuclei, to be looked at."""

from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from genselfdiff.masks import MaskWriter, PyramidShape
from genselfdiff.slides import open_slide

SAMPLE = Path(__file__).parents[2] / "examples" / "CMU-1-Small-Region.svs"
TILE = 256
STEPS = (1, 4, 16, 64)
"""Downsampling of the levels, as scanners write them."""

_KINDS = 64
"""Different tiles, or nuclei."""
_CELL = 36
"""Pixels between the middles of nuclei."""


def write_slide(path: Path, side: int) -> None:
    """Write ``side`` x ``side`` pixels, 0.5 um/px, as tiles of JPEG with quality 80."""
    with open_slide(SAMPLE) as sample:
        rng = np.random.default_rng(1)
        tiles = []
        while len(tiles) < _KINDS:
            places = rng.integers(0, (sample.width - TILE, sample.height - TILE)).tolist()
            pixels = sample.read_level(*places, TILE, TILE)
            if pixels.mean() < 215:  # tissue, which takes the most work
                tiles.append(bytes(imagecodecs.jpeg8_encode(pixels, level=80, subsampling="422")))

    def chosen(count: int) -> Iterator[bytes]:
        for kind in rng.integers(0, _KINDS, count).tolist():
            yield tiles[kind]

    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for step in STEPS:
            size = -(-side // step)
            writer.write(
                chosen((-(-size // TILE)) ** 2),
                shape=(size, size, 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                compression="jpeg",
                photometric="ycbcr",
                subsampling=(2, 1),
                subfiletype=int(step > 1),
                resolution=(2e4 / step, 2e4 / step),
                resolutionunit="CENTIMETER",
            )


def write_mask(path: Path, slide: str, nuclei: int) -> int:
    """Write a mask of ``nuclei`` ** 2 ellipses of two classes; return its side in pixels."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:_CELL, :_CELL]
    kinds = []
    for i in range(_KINDS):
        angle, (width, height) = rng.uniform(0, np.pi), rng.uniform(6, 14, 2)
        dx, dy = x - rng.uniform(15, 21), y - rng.uniform(15, 21)
        u = dx * np.cos(angle) + dy * np.sin(angle)
        v = dy * np.cos(angle) - dx * np.sin(angle)
        inside = (u / width) ** 2 + (v / height) ** 2 < 1
        kinds.append(np.where(inside, 1 + i % 2, 0).astype(np.uint8))
    cells = np.stack(kinds)
    side = nuclei * _CELL
    with MaskWriter(
        path,
        PyramidShape(side, side, 0.5),
        palette=[(255, 255, 255), (30, 160, 60), (200, 30, 160)],
        class_names=["background", "lymphocyte", "tumour"],
        description={"job": {"slide": f"{slide} 0"}},
    ) as writer:
        for _ in range(nuclei):
            row = cells[rng.integers(0, _KINDS, nuclei)]
            writer.write_rows(row.transpose(1, 0, 2).reshape(_CELL, side))
    return side
