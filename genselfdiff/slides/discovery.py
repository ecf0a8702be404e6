"""Finding slide and image files in folders."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from genselfdiff.errors import InputError
from genselfdiff.slides.openslide_file import OPENSLIDE_SUFFIXES
from genselfdiff.slides.zarr_folder import ZARR_SUFFIX, is_zarr

IMAGE_SUFFIXES = OPENSLIDE_SUFFIXES | {".svs", ".tif", ".tiff", ".btf", ".png", ".jpg", ".jpeg"}
"""Lower-case endings by which files in a folder are taken for slides or images."""


def find_slides(paths: Iterable[str | Path]) -> list[Path]:
    """List the slides and images that ``paths`` name, each once, folders in sorted order.

    Args:
        paths: files, taken whatever they end in, and folders, searched recursively for
            ``IMAGE_SUFFIXES`` and folders in ``ZARR_SUFFIX``, each one slide; hidden files and
            folders in them are left out.

    Raises:
        InputError: a path does not exist, a folder holds no image, or ``paths`` is empty.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if is_folder_of_slides(path):
            images = _images_below(path)
            if not images:
                endings = " ".join(sorted({*IMAGE_SUFFIXES, ZARR_SUFFIX}))
                raise InputError(f"{path}: no images in this folder; expected files in {endings}")
            found.update(dict.fromkeys(images))
        elif path.exists():
            found[path] = None
        else:
            raise InputError(f"{path}: no such file or folder")
    if not found:
        raise InputError("no slide or image given; name at least one file or folder")
    return list(found)


def is_folder_of_slides(path: Path) -> bool:
    """Whether ``path`` is a folder to search, not one that is a slide itself."""
    return path.is_dir() and not is_zarr(path)


def _images_below(folder: Path) -> list[Path]:
    found = sorted(_walk(folder))
    # A .vms slide is stored in JPEG files beside it whose names begin with its own.
    stems = tuple(str(path.with_suffix("")) for path in found if path.suffix.lower() == ".vms")
    return [
        path for path in found if path.suffix.lower() != ".jpg" or not str(path).startswith(stems)
    ]


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        zarrs = [name for name in folders if Path(name).suffix.lower() == ZARR_SUFFIX]
        folders[:] = [name for name in folders if name not in zarrs and not name.startswith(".")]
        images = [name for name in files if Path(name).suffix.lower() in IMAGE_SUFFIXES]
        for name in (*zarrs, *images):
            path = Path(place, name)
            if not name.startswith(".") and (path.is_file() or name in zarrs):
                yield path
