"""Finding the files that importers pair."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from genselfdiff.data.importers.left_out import LeftOut
from genselfdiff.data.naming import name_some, stem_of
from genselfdiff.errors import InputError, one_line
from genselfdiff.input_files import open_input
from genselfdiff.slides import IMAGE_SUFFIXES, read_image
from genselfdiff.slides.discovery import files_below

PICTURE_SUFFIXES = IMAGE_SUFFIXES | {".bmp"}


def images_below(folder: Path, suffixes: Collection[str] = PICTURE_SUFFIXES) -> dict[str, Path]:
    """Images in ``folder`` and folders in it but hidden ones, by file name without suffix.

    Raises:
        InputError: there is none, or two have the same name.
    """
    found = labels_below(folder, suffixes, "images")
    if not found:
        raise InputError(
            f"{folder}: no image in it ({' '.join(sorted(suffixes))}): name the folder of the"
            " images"
        )
    return found


def labels_below(folder: Path, suffixes: Collection[str], what: str = "labels") -> dict[str, Path]:
    """Files in ``folder`` and folders in it but hidden ones, by file name without suffix.

    Raises:
        InputError: there is no such folder, or two files have the same name.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: {'is no' if folder.exists() else 'no such'} folder")
    found: dict[str, Path] = {}
    for path in sorted(files_below(folder, suffixes)):
        name = stem_of(path)
        if name in found:
            raise InputError(
                f"{folder}: {found[name]} and {path} have the same name, suffix aside:"
                f" name the folder that holds the {what} only"
            )
        found[name] = path
    return found


def beside(
    images: Mapping[str, Path],
    labels: Mapping[str, Path],
    where: Path,
    kind: str,
    left_out: LeftOut,
) -> Sequence[tuple[Path, Path]]:
    """Pair images with the files of their labels, by name; those without the other are left out.

    Raises:
        InputError: no image has labels.
    """
    pairs = [(images[name], labels[name]) for name in sorted(images.keys() & labels.keys())]
    if not pairs:
        there = name_some([path.name for path in labels.values()]) or "none"
        raise InputError(
            f"{where}: no {kind} has the name of an image, suffix aside; there are {there}"
        )
    for mine, others, what, lacks in (
        (labels, images, "files", "without an image of their name"),
        (images, labels, "images", f"without {kind} of their name"),
    ):
        alone = sorted(str(mine[name]) for name in mine.keys() - others.keys())
        left_out.tell(where, what, {lacks: alone})
    return pairs


def picture(path: Path) -> tuple[Path | NDArray[np.uint8], tuple[int, int]]:
    """What stands for an image in a `LabelledField`, and its (height, width).

    Training reads all formats but BMP; of that the pixels are taken.

    Raises:
        InputError: it cannot be read.
    """
    if path.suffix.lower() != ".bmp":
        return path, read_image(path).shape[:2]
    pixels = stored_colours(path)
    return pixels, pixels.shape[:2]


def stored_colours(path: Path) -> NDArray[np.uint8]:
    """The (H, W, 3) colours in a picture that is no TIFF, upright, whatever its alpha.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with open_input(path) as stream, Image.open(stream) as file:
            return np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
    except InputError:
        raise
    except Exception as error:  # decoders raise whatever a damaged file makes them stumble over
        raise InputError(f"{path}: cannot be read: {one_line(error)}") from error
