"""GlaS (MICCAI 2015): glands numbered in ``NAME_anno.bmp`` beside ``NAME.bmp``."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from genselfdiff.data.importers import Import
from genselfdiff.data.importers.files import images_below, picture
from genselfdiff.data.labelled_folder import LabelledField
from genselfdiff.data.masks import read_mask
from genselfdiff.errors import InputError

CLASSES = ("background", "gland")
MPP = 0.62
"""Of all images of the challenge (Sirinukunwattana et al., Medical Image Analysis 2017)."""

_END = "_anno"


def read_glas(folder: Path) -> Import:
    """Read all images below ``folder`` with annotations there; every number above 0 is a gland.

    Raises:
        InputError: there is no such pair; on iterating: a file cannot be read.
    """
    files = images_below(folder)
    pairs = [
        (files[name.removesuffix(_END)], path)
        for name, path in sorted(files.items())
        if name.endswith(_END) and name.removesuffix(_END) in files
    ]
    if not pairs:
        raise InputError(f"{folder}: no image X.bmp with its annotation X{_END}.bmp")
    return Import(CLASSES, len(pairs), _fields(pairs))


def _fields(pairs: Sequence[tuple[Path, Path]]) -> Iterator[LabelledField]:
    for image, annotation in pairs:
        instances = read_mask(annotation).astype(np.int32)
        pixels, size = picture(image)
        if size != instances.shape:
            raise InputError(f"{annotation}: is not of the size of {image}")
        classes = (instances > 0).astype(np.uint8)
        yield LabelledField(image.stem, pixels, classes, instances, MPP, annotation)
