"""Finding slide and image files in folders."""

from collections.abc import Iterable
from pathlib import Path

from genselfdiff.errors import InputError
from genselfdiff.slides.openslide_file import OPENSLIDE_SUFFIXES

IMAGE_SUFFIXES = OPENSLIDE_SUFFIXES | {".svs", ".tif", ".tiff", ".btf", ".png", ".jpg", ".jpeg"}
"""Lower-case endings by which files in a folder are taken for slides or images."""


def find_slides(paths: Iterable[str | Path]) -> list[Path]:
    """List the slides and images that ``paths`` name, each once, folders in sorted order.

    Args:
        paths: files, taken whatever they end in, and folders, searched recursively for
            ``IMAGE_SUFFIXES``; hidden files and folders in them are left out.

    Raises:
        InputError: a path does not exist, a folder holds no image, or ``paths`` is empty.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            images = _images_below(path)
            if not images:
                endings = " ".join(sorted(IMAGE_SUFFIXES))
                raise InputError(f"{path}: no images in this folder; expected files in {endings}")
            found.update(dict.fromkeys(images))
        elif path.exists():
            found[path] = None
        else:
            raise InputError(f"{path}: no such file or folder")
    if not found:
        raise InputError("no slide or image given; name at least one file or folder")
    return list(found)


def _images_below(folder: Path) -> list[Path]:
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
    # A .vms slide is stored in JPEG files beside it whose names begin with its own.
    stems = tuple(str(path.with_suffix("")) for path in found if path.suffix.lower() == ".vms")
    return [
        path for path in found if path.suffix.lower() != ".jpg" or not str(path).startswith(stems)
    ]
