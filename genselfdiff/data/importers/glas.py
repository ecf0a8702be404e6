"""GlaS (MICCAI 2015): glands numbered in ``NAME_anno.bmp`` beside ``NAME.bmp``."""

from functools import partial
from pathlib import Path

import numpy as np

from genselfdiff.data.importers import Import
from genselfdiff.data.importers.files import beside, images_below
from genselfdiff.data.importers.instances import numbered_field
from genselfdiff.data.importers.left_out import LeftOut
from genselfdiff.data.labelled.masks import open_mask
from genselfdiff.data.labelled_folder import LabelledField

CLASSES = ("background", "gland")
MPP = 0.62
"""Of all images of the challenge (Sirinukunwattana et al., Medical Image Analysis 2017)."""

_END = "_anno"


def read_glas(folder: Path) -> Import:
    """Read all images below ``folder`` with annotations there; every number above 0 is a gland.

    Raises:
        InputError: there is no such pair; on iterating: no pair can be read.
    """
    files, left_out = images_below(folder), LeftOut()
    annotations = {
        name.removesuffix(_END): path for name, path in files.items() if name.endswith(_END)
    }
    images = {name: path for name, path in files.items() if not name.endswith(_END)}
    pairs = beside(images, annotations, folder, f"annotation X{_END}.bmp", left_out)
    readers = [partial(_read, *pair) for pair in pairs]
    return Import(CLASSES, len(pairs), left_out.each(readers), left_out)


def _read(image: Path, annotation: Path) -> LabelledField:
    numbers = open_mask(annotation, by_colours=False).values
    return numbered_field(image, annotation, numbers, (numbers > 0).astype(np.uint8), MPP)
