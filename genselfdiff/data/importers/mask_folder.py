"""Folders of images and masks, with a table of what the values of the masks mean."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genselfdiff.data.importers import Import
from genselfdiff.data.importers.classes import Table, parse_meanings
from genselfdiff.data.importers.files import beside, images_below, picture, stored_colours
from genselfdiff.data.importers.left_out import LeftOut
from genselfdiff.data.labelled.masks import open_mask
from genselfdiff.data.labelled_folder import LabelledField
from genselfdiff.data.naming import name_some, stem_of
from genselfdiff.errors import InputError
from genselfdiff.slides import read_image

_TIFF_SUFFIXES = (".tif", ".tiff")


def read_mask_folder(images: Path, masks: Path, meanings: Sequence[str]) -> Import:
    """Pair the images of one folder with the masks of another by name, suffix aside.

    Args:
        images, masks: the folders.
        meanings: ``VALUE=CLASS`` each, where VALUE is a number, or a colour as ``#rrggbb`` for
            masks of colours; several can have one class. Classes are numbered as they come, but
            ``background`` is 0, and what is called ``ignore`` is `IGNORED`.

    Raises:
        InputError: the table is none, or no image has a mask; on iterating: no pair can be read, or
            a mask holds a value without a meaning.
    """
    table, names = parse_meanings(meanings)
    left_out = LeftOut()
    pairs = beside(images_below(images), images_below(masks), masks, "mask", left_out)
    colours = any(meaning.startswith("#") for meaning in meanings)
    return Import(names, len(pairs), _fields(pairs, table, colours, left_out), left_out)


def _fields(
    pairs: Sequence[tuple[Path, Path]], table: Table, colours: bool, left_out: LeftOut
) -> Iterator[LabelledField]:
    readers = [partial(_read, *pair, colours) for pair in pairs]
    for image, mask, pixels, values in left_out.each(readers):
        found, places = np.unique(values, return_inverse=True)
        unknown = [
            f"#{value:06x}" if colours else str(value) for value in found if value not in table
        ]
        if unknown:
            raise InputError(
                f"{mask}: nobody said what {name_some(unknown)} means: add VALUE=CLASS for it"
            )
        meaning = np.array([table[int(value)] for value in found], np.uint8)
        classes = meaning[places].reshape(values.shape)
        yield LabelledField(stem_of(image), pixels, classes, None, None, mask)


def _read(
    image: Path, mask: Path, colours: bool
) -> tuple[Path, Path, Path | NDArray[np.uint8], NDArray[np.integer]]:
    values = _colours(mask) if colours else open_mask(mask, by_colours=False).values
    pixels, size = picture(image)
    if size != values.shape:
        raise InputError(f"{mask}: is not of the size of {image}")
    return image, mask, pixels, values


def _colours(path: Path) -> NDArray[np.uint32]:
    """The pixels of a mask of colours as 0xRRGGBB."""
    is_tiff = path.suffix.lower() in _TIFF_SUFFIXES  # of which Pillow knows fewer colour maps
    colours = read_image(path) if is_tiff else stored_colours(path)
    red, green, blue = np.moveaxis(colours, 2, 0)
    return red.astype(np.uint32) << 16 | green.astype(np.uint32) << 8 | blue
