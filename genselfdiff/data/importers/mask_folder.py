"""Folders of images and masks, with a table of what the values of the masks mean."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from genselfdiff.data.importers import Import
from genselfdiff.data.importers.files import beside, images_below, picture
from genselfdiff.data.labelled_folder import IGNORED, LabelledField, require_names
from genselfdiff.data.masks import open_mask
from genselfdiff.data.naming import name_some
from genselfdiff.errors import InputError, one_line

BACKGROUND, IGNORE = "background", "ignore"
"""Names in a table with a meaning: index 0, and what nobody has labelled."""

Table = Mapping[int, int]
"""From a value, or a colour as 0xRRGGBB, to an index."""


def read_mask_folder(images: Path, masks: Path, meanings: Sequence[str]) -> Import:
    """Pair the images of one folder with the masks of another by name, suffix aside.

    Args:
        images, masks: the folders.
        meanings: ``VALUE=CLASS`` each, where VALUE is a number, or a colour as ``#rrggbb`` for
            masks of colours; several can have one class. Classes are numbered as they come, but
            ``background`` is 0, and what is called ``ignore`` is `IGNORED`.

    Raises:
        InputError: the table is none, or images and masks do not pair; on iterating: a file cannot
            be read, or holds a value without a meaning.
    """
    table, names = _parse(meanings)
    pairs = beside(images_below(images), images_below(masks), masks, "mask")
    colours = any(meaning.startswith("#") for meaning in meanings)
    return Import(names, len(pairs), _fields(pairs, table, colours))


def _parse(meanings: Sequence[str]) -> tuple[Table, list[str]]:
    names, values = [BACKGROUND], []
    for meaning in meanings:
        value, equals, name = (part.strip() for part in meaning.partition("="))
        if not equals or not name or not re.fullmatch(r"\d+|#[0-9a-fA-F]{6}", value):
            raise InputError(f"{meaning}: give VALUE=CLASS, such as 255=gland or #ff0000=tumor")
        values.append((value, name))
        if name not in (*names, IGNORE):
            names.append(name)
    if len({value.startswith("#") for value, _ in values}) > 1:
        raise InputError("numbers and colours in one table: masks hold either")
    require_names(names, " ".join(meanings))
    numbers = {name: index for index, name in enumerate(names)} | {IGNORE: IGNORED}
    return {
        int(value.lstrip("#"), 16 if "#" in value else 10): numbers[name] for value, name in values
    }, names


def _fields(
    pairs: Sequence[tuple[Path, Path]], table: Table, colours: bool
) -> Iterator[LabelledField]:
    for image, mask in pairs:
        values = _colours(mask) if colours else open_mask(mask, by_colours=False).values
        pixels, size = picture(image)
        if size != values.shape:
            raise InputError(f"{mask}: is not of the size of {image}")
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
        yield LabelledField(image.stem, pixels, classes, None, None, mask)


def _colours(path: Path) -> NDArray[np.int64]:
    """The pixels of a mask of colours as 0xRRGGBB."""
    try:
        with Image.open(path) as file:
            red, green, blue = np.moveaxis(np.asarray(file.convert("RGB"), np.int64), 2, 0)
    except Exception as error:  # decoders raise whatever a damaged file makes them stumble over
        raise InputError(f"{path}: cannot be read: {one_line(error)}") from error
    return red << 16 | green << 8 | blue
