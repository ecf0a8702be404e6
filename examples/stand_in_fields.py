"""Cut fields from a slide and label their nuclei by a classical rule.

The labels stand in for a pathologist's: they let the demo run every step, but a model that learns
from them learns the rule.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.measure import label
from skimage.morphology import isotropic_opening

from genselfdiff.data.classical import otsu_nuclei
from genselfdiff.slides import TissueMap, open_slide

MPP = 0.5
SIDE = 384
COUNT = 8
SEED = 2
SHEET_RADIUS_UM = 6.0
"""No nucleus of this slide holds a disc of this radius; its sheets of keratin, as dark, do."""


def main(slide_path: str, out: str) -> None:
    """Write COUNT fields that do not overlap to out/images and their labels to out/masks."""
    images, masks = Path(out, "images"), Path(out, "masks")
    images.mkdir(parents=True)
    masks.mkdir()
    with open_slide(slide_path) as slide:
        view = slide.at_mpp(MPP)
        tissue = TissueMap(slide)
        cells = [
            (x, y)
            for y in range(0, view.height - SIDE + 1, SIDE)
            for x in range(0, view.width - SIDE + 1, SIDE)
        ]
        filled = [
            (x, y)
            for x, y in cells
            if tissue.fraction(*(round(side * view.scale) for side in (x, y, SIDE, SIDE))) > 0.7
        ]
        order = np.random.default_rng(SEED).permutation(len(filled))[:COUNT]
        for number, index in enumerate(order):
            x, y = filled[index]
            field = view.read(x, y, SIDE, SIDE)
            Image.fromarray(field).save(images / f"field-{number}.png")
            labels = without_sheets(otsu_nuclei(field, MPP))
            Image.fromarray(labels).save(masks / f"field-{number}.png")
    print(f"{len(order)} fields of {SIDE} x {SIDE} pixels at {MPP} um/px in {out}")


def without_sheets(labels: np.ndarray) -> np.ndarray:
    """Labels (H, W) without the objects that are too thick for nuclei."""
    thick = isotropic_opening(labels > 0, SHEET_RADIUS_UM / MPP)
    objects = label(labels)
    return np.where(np.isin(objects, np.unique(objects[thick])), 0, labels).astype(np.uint8)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: stand_in_fields.py SLIDE FOLDER")
    main(sys.argv[1], sys.argv[2])
