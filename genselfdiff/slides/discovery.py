"""Finding slide and image files in folders."""

import logging
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

from genselfdiff.errors import InputError, one_line
from genselfdiff.input_files import is_regular_file
from genselfdiff.slides.formats.dicom.series import DICOM_SUFFIX, grouped, is_dicom_slide, series_of
from genselfdiff.slides.formats.ome_companion import OME_TIFF_SUFFIXES
from genselfdiff.slides.formats.ome_planes import files_of_planes
from genselfdiff.slides.formats.ome_zarr import ZARR_SUFFIX, is_zarr
from genselfdiff.slides.formats.openslide import OPENSLIDE_SUFFIXES
from genselfdiff.slides.stored.notes import tell_once
from genselfdiff.storage.listing import is_folder, names_in, urls_below
from genselfdiff.storage.opening import for_each
from genselfdiff.storage.places import Place, Url, local_paths, place_of
from genselfdiff.text import counted

logger = logging.getLogger("genselfdiff")

IMAGE_SUFFIXES = OPENSLIDE_SUFFIXES | {".svs", ".tif", ".tiff", ".btf", ".png", ".jpg", ".jpeg"}
"""Lower-case endings by which files in a folder are taken for slides or images."""

PROBABILITIES_ZARR = "_probabilities.ome.zarr"
"""End of the names of folders that gsd leaves beside masks, which are no slides."""

CORRECTIONS_JOURNAL = "corrections.journal"
"""What was drawn in the page of ``gsd view``, in the folder of corrections."""

NO_SLIDES = {
    "images": (CORRECTIONS_JOURNAL,),
    "masks": (CORRECTIONS_JOURNAL, "classes.csv"),
    "instances": (CORRECTIONS_JOURNAL, "classes.csv"),
    "starts": (CORRECTIONS_JOURNAL,),
}
"""Folders of images that are no slides, labels and what was cut out of slides to be corrected, each
with the files beside it any of which says so."""


@overload
def find_slides(paths: Iterable[Path], written: Path | None = None) -> list[Path]: ...
@overload
def find_slides(paths: Iterable[str | Place], written: Place | None = None) -> list[Place]: ...
def find_slides(
    paths: Iterable[str | Path] | Iterable[str | Place], written: Place | None = None
) -> list[Path] | list[Place]:
    """List the slides and images that ``paths`` name, each once, folders in sorted order.

    Args:
        paths: files, taken whatever they end in, and folders, searched recursively for
            ``IMAGE_SUFFIXES`` and folders in ``ZARR_SUFFIX``, each one slide; hidden files and
            folders in them are left out, and ``NO_SLIDES``. A URL that ends in a slash is a
            folder, too. A folder with one series of DICOM files is a slide; of several, the first
            file stands for each, and so does the first of OME-TIFFs that hold a plane each.
        written: a folder that results go to; what lies in it, from a call before, is no slide.

    Raises:
        InputError: a path does not exist, a folder holds no image, or ``paths`` is empty.
    """
    found: dict[Place, None] = {}
    for path in map(place_of, paths):
        if is_folder_of_slides(path):
            images = [image for image in _images_below(path) if not _is_below(image, written)]
            if not images:
                endings = " ".join(sorted({*IMAGE_SUFFIXES, DICOM_SUFFIX, ZARR_SUFFIX}))
                raise InputError(f"{path}: no images in this folder; expected files in {endings}")
            found.update(dict.fromkeys(images))
        elif isinstance(path, Url) or os.path.exists(path):  # False for a name that is too long
            found[path] = None
        else:
            raise InputError(f"{path}: no such file or folder")
    if not found:
        raise InputError("no slide or image given; name at least one file or folder")
    return list(found)


def is_folder_of_slides(path: Place) -> bool:
    """Whether ``path`` is a folder to search, not one that is a slide itself."""
    if isinstance(path, Url):
        return is_folder(path) and path.suffix.lower() != ZARR_SUFFIX and not _is_only_dicom(path)
    return os.path.isdir(path) and not is_zarr(path) and not _is_only_dicom(path)


def name_of(slide: Place) -> str:
    """The name of a slide without the ending that its format has; folders of DICOM have none."""
    return slide.name if is_dicom_slide(slide) else slide.stem


def _is_only_dicom(folder: Place) -> bool:
    """Whether a folder is a slide in DICOM, and nothing else lies in it."""
    if isinstance(folder, Url):
        others = (
            is_directory or Path(name).suffix.lower() in IMAGE_SUFFIXES
            for name, is_directory in names_in(folder)
        )
        return not any(others) and is_dicom_slide(folder)
    if not is_dicom_slide(folder):
        return False
    visible = (entry for entry in folder.iterdir() if not entry.name.startswith("."))
    return not any(entry.is_dir() or entry.suffix.lower() in IMAGE_SUFFIXES for entry in visible)


def _is_below(path: Place, folder: Place | None) -> bool:
    if isinstance(path, Url) or isinstance(folder, Url):
        return isinstance(path, Url) and isinstance(folder, Url) and path.is_below(folder)
    return folder is not None and Path(os.path.realpath(path)).is_relative_to(
        os.path.realpath(folder)
    )


def files_below(folder: Path, suffixes: Collection[str]) -> Iterator[Path]:
    """Give the files in ``folder`` and in all folders below it, links to folders among them.

    Each folder is looked into once, whatever links lead there. Hidden files and folders are left
    out, and what cannot be looked into, with a warning. A folder named ``.zarr`` counts as a file.

    Args:
        folder: where to look.
        suffixes: lower-case endings of the names, which may be in capitals.
    """
    seen: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_warn):
        told = os.stat(place)
        if (told.st_dev, told.st_ino) in seen:
            folders.clear()
            continue
        seen.add((told.st_dev, told.st_ino))
        zarrs = [name for name in folders if Path(name).suffix.lower() == ZARR_SUFFIX]
        folders[:] = sorted(
            name for name in folders if name not in zarrs and not name.startswith(".")
        )
        zarrs = [name for name in zarrs if not name.endswith(PROBABILITIES_ZARR)]
        for name in (*zarrs, *files):
            path = Path(place, name)
            if name.startswith(".") or path.suffix.lower() not in suffixes:
                continue
            if name in zarrs or is_regular_file(path):
                yield path
            else:
                logger.warning("%s: left out: it is no file, or a link to none", path)


def _warn(error: OSError) -> None:
    logger.warning("%s: left out, it cannot be looked into: %s", error.filename, one_line(error))


def _images_below(folder: Place) -> Sequence[Place]:
    if isinstance(folder, Url):
        urls = urls_below(folder, {*IMAGE_SUFFIXES, DICOM_SUFFIX}, {ZARR_SUFFIX})
        instances = [url for url in urls if url.suffix.lower() == DICOM_SUFFIX]
        others = [url for url in urls if url.suffix.lower() != DICOM_SUFFIX]
        return sorted([*others, *_dicom_slides(folder, instances)], key=str)
    found = sorted(files_below(folder, {*IMAGE_SUFFIXES, ZARR_SUFFIX}))
    no_slides = sorted({path.parent for path in found if _is_no_slides(path.parent, folder)})
    found = [path for path in found if path.parent not in no_slides]
    if no_slides:
        told = f"{', '.join(map(str, no_slides))}: labels, or cut out by corrections"
        if not found:
            raise InputError(f"{told}: name the folder that is meant")
        tell_once(logging.INFO, f"{told}: left out")
    dicoms = sorted(files_below(folder, {DICOM_SUFFIX}))
    found = sorted([*_of_planes(found), *local_paths(_dicom_slides(folder, dicoms))])
    # A .vms slide is stored in JPEG files beside it whose names begin with its own.
    stems = tuple(str(path.with_suffix("")) for path in found if path.suffix.lower() == ".vms")
    return [
        path for path in found if path.suffix.lower() != ".jpg" or not str(path).startswith(stems)
    ]


def _is_no_slides(part: Path, named: Path) -> bool:
    """Whether ``part`` is of ``NO_SLIDES``, and not what the user has ``named``."""
    marks = NO_SLIDES.get(part.name, ())
    return part != named and any(part.with_name(mark).is_file() for mark in marks)


def _of_planes(files: Iterable[Path]) -> Iterator[Path]:
    """``files`` without those whose planes belong to one before them."""
    further: set[Path] = set()
    for path in files:
        if path not in further:
            yield path
        if path.name.lower().endswith(OME_TIFF_SUFFIXES):
            further.update(files_of_planes(path))


def _dicom_slides(folder: Place, files: Sequence[Place]) -> Iterator[Place]:
    """Each series of ``files``: its folder, or where others lie there too, its first file.

    What is no whole slide image is told, and left out.
    """
    folders: dict[Place, list[Place]] = {}
    others: list[Place] = []
    for file, series in zip(files, for_each(files, series_of), strict=True):
        if series:
            parent = file.parent
            place = Url(f"{parent.address}/") if isinstance(parent, Url) else parent
            folders.setdefault(place, []).append(file)
        else:
            others.append(file)
    if others:
        tell_once(
            logging.WARNING,
            f"{folder}: left out, as no whole slide images in DICOM:"
            f" {counted(len(others), 'file')}, the first {others[0]}",
        )
    for place, inside in folders.items():
        slides = list(grouped(inside).values())
        yield from [place] if len(slides) == 1 else [found[0] for found in slides]
