"""Finding the files that importers pair."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from genselfdiff.data.naming import name_some
from genselfdiff.errors import InputError, one_line
from genselfdiff.slides import IMAGE_SUFFIXES, read_image

_SUFFIXES = IMAGE_SUFFIXES | {".bmp"}


def images_below(folder: Path) -> dict[str, Path]:
    """Images in ``folder`` and folders in it but hidden ones, by file name without suffix.

    Raises:
        InputError: there is none, or two have the same name.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or path.suffix.lower() not in _SUFFIXES or not path.is_file():
            continue
        if path.stem in found:
            raise InputError(
                f"{folder}: {found[path.stem]} and {path} have the same name, suffix aside:"
                " name the folder that holds the images only"
            )
        found[path.stem] = path
    if not found:
        raise InputError(
            f"{folder}: no image in it ({' '.join(sorted(_SUFFIXES))}): name the folder of the"
            " images"
        )
    return found


def beside(
    images: Mapping[str, Path], labels: Mapping[str, Path], where: Path, kind: str
) -> Sequence[tuple[Path, Path]]:
    """Pair images with the files of their labels, by name.

    Raises:
        InputError: no image has labels, or labels have no image.
    """
    alone = sorted(labels.keys() - images.keys())
    if alone:
        raise InputError(f"{where}: no image for {name_some([labels[name] for name in alone])}")
    pairs = [(images[name], labels[name]) for name in sorted(images.keys() & labels.keys())]
    if not pairs:
        raise InputError(f"{where}: no {kind} has the name of an image, suffix aside")
    return pairs


def picture(path: Path) -> tuple[Path | NDArray[np.uint8], tuple[int, int]]:
    """What stands for an image in a `LabelledField`, and its (height, width).

    Training reads all formats but BMP; of that the pixels are taken.

    Raises:
        InputError: it cannot be read.
    """
    if path.suffix.lower() != ".bmp":
        return path, read_image(path).shape[:2]
    try:
        with Image.open(path) as file:
            pixels = np.asarray(file.convert("RGB"))
    except Exception as error:  # decoders raise whatever a damaged file makes them stumble over
        raise InputError(f"{path}: cannot be read: {one_line(error)}") from error
    return pixels, pixels.shape[:2]
