"""Which DICOM files belong together: those of one series in one folder are one slide."""

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from genselfdiff.errors import InputError, one_line
from genselfdiff.input_files import is_regular_file
from genselfdiff.slides.formats.dicom.elements import is_dicom, read_header
from genselfdiff.slides.formats.dicom.instance import WHOLE_SLIDE
from genselfdiff.storage.listing import is_folder, names_in
from genselfdiff.storage.opening import for_each
from genselfdiff.storage.places import Place, Url
from genselfdiff.storage.remote_file import RemoteFile
from genselfdiff.storage.stored_file import LocalFile, StoredFile

DICOM_SUFFIX = ".dcm"
"""Lower-case ending by which files in a folder are looked at."""

_SERIES = 0x0020000E


def series_of(place: Place) -> str:
    """The series that a file belongs to; empty if it is no whole slide image in DICOM.

    Raises:
        InputError: a file by URL cannot be read.
    """
    if isinstance(place, Url):
        return _series_of_url(place)
    try:
        told = os.stat(place)
    except (OSError, ValueError):
        return ""
    return _series_of_path(place, told.st_mtime_ns, told.st_size)


@lru_cache(maxsize=65536)
def _series_of_path(path: Path, changed: int, size: int) -> str:
    """Read what `series_of` gives of a file as it was then."""
    if not is_regular_file(path):
        return ""
    try:
        with LocalFile(path) as file:
            return _series_in_header(file)
    except (InputError, OSError):  # told when it is opened
        return ""


@lru_cache(maxsize=65536)
def _series_of_url(url: Url) -> str:
    """Ask once in a process: nothing else is made of a file that has changed than an error."""
    with RemoteFile(url) as file:
        return _series_in_header(file.metadata())


def _series_in_header(file: StoredFile) -> str:
    if not is_dicom(file.read_at(0, 132)):
        return ""
    try:
        told = read_header(file, _SERIES).elements
    except ValueError:  # told when it is opened
        return ""
    is_slide = told.get("SOPClassUID") == (WHOLE_SLIDE,)
    return "".join(told.get("SeriesInstanceUID", ())) if is_slide else ""


def series_in(folder: Place) -> dict[str, list[Place]]:
    """The files of each series that lie in a folder, both in the order of their names.

    Raises:
        InputError: the folder cannot be read, or a file in it by URL.
    """
    return grouped(_beside(folder, DICOM_SUFFIX))


def grouped(files: Sequence[Place]) -> dict[str, list[Place]]:
    """``files`` by their series, without those that are no whole slide image."""
    found: dict[str, list[Place]] = {}
    for file, series in zip(files, for_each(files, series_of), strict=True):
        if series:
            found.setdefault(series, []).append(file)
    return found


def is_dicom_slide(folder: Place) -> bool:
    """Whether what lies in a folder is one slide in DICOM.

    Raises:
        InputError: a folder by URL cannot be listed, or a file in it be read.
    """
    if isinstance(folder, Url):
        return is_folder(folder) and len(series_in(folder)) == 1
    try:
        return os.path.isdir(folder) and len(series_in(folder)) == 1
    except InputError:
        return False


def files_of_series(place: Place) -> list[Place]:
    """The files of a slide, which a folder of them names, or one of them.

    Web servers are asked for the list of a folder only where that is named.

    Raises:
        InputError: the folder cannot be read, or does not hold just one series.
    """
    if is_folder(place) if isinstance(place, Url) else place.is_dir():
        found = list(series_in(place).values())
        if len(found) != 1:
            raise InputError(
                f"{place}: holds {len(found)} DICOM series: name a file of one of them"
            )
        return found[0]
    if isinstance(place, Url) and place.scheme in ("http", "https"):
        return [place]
    series = series_of(place)
    files = sorted({*_beside(place.parent, place.suffix.lower()), place}, key=str)
    same = (series and each == series for each in for_each(files, series_of))
    return [file for file, is_same in zip(files, same, strict=True) if is_same or file == place]


def _beside(folder: Place, suffix: str) -> list[Place]:
    if isinstance(folder, Url):
        names = [name for name, is_directory in names_in(folder) if not is_directory]
        urls = [folder / name for name in names]
        return [url for url in urls if url.suffix.lower() == suffix]
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        return [path for path in paths if path.suffix.lower() == suffix]
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {one_line(error)}") from error
