"""Numbers of objects, one in each pixel, as StarDist and Cellpose write them."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genselfdiff.data.importers import Import
from genselfdiff.data.importers.classes import BACKGROUND
from genselfdiff.data.importers.files import beside, images_below, labels_below, picture
from genselfdiff.data.importers.left_out import LeftOut
from genselfdiff.data.labelled.masks import MASK_SUFFIXES, open_mask
from genselfdiff.data.labelled_folder import LabelledField, require_names
from genselfdiff.data.naming import stem_of
from genselfdiff.errors import InputError

_ENDS = ("_cp_masks", "_masks")
"""Of names that Cellpose gives masks beside their images: predicted ones, and those it learns."""

_PICKLES = "_seg"
"""End of names of the .npy in which Cellpose's window keeps its work: a pickle, which is code."""


def read_instances(images: Path, labels: Path, class_name: str = "nucleus") -> Import:
    """Pair images with PNGs or TIFFs of numbers by name; every number above 0 is an object.

    Where ``labels`` holds ``NAME_cp_masks`` or ``NAME_masks``, as Cellpose writes them also beside
    the images, only these are labels, of the image NAME.

    Raises:
        InputError: there is no such pair; on iterating: no pair can be read.
    """
    names = [BACKGROUND, class_name]
    require_names(names, "--class-name")
    files = labels_below(labels, {*MASK_SUFFIXES, ".npy"})
    end = next((end for end in _ENDS if any(name.endswith(end) for name in files)), "")
    pictures = images_below(images)
    if end:
        pictures = {name: path for name, path in pictures.items() if not name.endswith(end)}
    elif images.resolve() == labels.resolve():
        raise InputError(f"{labels}: no name ends in {' or '.join(_ENDS)}: name another folder")
    pairs = beside(pictures, _by_image(files, end, labels), labels, "mask", left_out := LeftOut())
    readers = [partial(_read, *pair) for pair in pairs]
    return Import(names, len(pairs), left_out.each(readers), left_out)


def _by_image(files: Mapping[str, Path], end: str, folder: Path) -> dict[str, Path]:
    found = {
        name.removesuffix(end): path
        for name, path in files.items()
        if name.endswith(end) and path.suffix.lower() in MASK_SUFFIXES
    }
    pickles = [path for name, path in files.items() if name.endswith(_PICKLES)]
    if not found and pickles:
        raise InputError(
            f"{pickles[0]}: is a pickle, which can hold code: have Cellpose save its masks as PNG"
            " or TIFF (--save_png, or 'Save masks' in its window)"
        )
    return found


def _read(image: Path, source: Path) -> LabelledField:
    numbers = open_mask(source, by_colours=False).values
    if numbers.max() == 255 and set(np.unique(numbers).tolist()) <= {0, 255}:
        raise InputError(
            f"{source}: holds 0 and 255 alone, no numbers of objects: 'gsd data import folder'"
            " takes masks of foreground"
        )
    return numbered_field(image, source, numbers, (numbers > 0).astype(np.uint8))


def numbered_field(
    image: Path,
    source: Path,
    numbers: NDArray[np.integer],
    classes: NDArray[np.uint8],
    mpp: float | None = None,
) -> LabelledField:
    """An image with (H, W) numbers of its objects from the file ``source``, and their classes.

    Raises:
        InputError: the image cannot be read, or is not of their size.
    """
    pixels, size = picture(image)
    if size != numbers.shape:
        raise InputError(f"{source}: is not of the size of {image}")
    if numbers.max() > np.iinfo(np.int32).max:
        numbers = np.unique(np.append(0, numbers), return_inverse=True)[1][1:].reshape(size)
    return LabelledField(stem_of(image), pixels, classes, numbers.astype(np.int32), mpp, source)
