"""Which DICOM files belong together: those of one series in one folder are one slide."""

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from genselfdiff.errors import InputError, one_line
from genselfdiff.input_files import is_regular_file
from genselfdiff.slides.formats.dicom.elements import is_dicom, read_header
from genselfdiff.slides.formats.dicom.instance import WHOLE_SLIDE
from genselfdiff.storage.stored_file import LocalFile

DICOM_SUFFIX = ".dcm"
"""Lower-case ending by which files in a folder are looked at."""

_SERIES = 0x0020000E


def series_of(path: Path) -> str:
    """The series that a file belongs to; empty if it is no whole slide image in DICOM."""
    try:
        told = os.stat(path)
    except (OSError, ValueError):
        return ""
    return _series_of(path, told.st_mtime_ns, told.st_size)


@lru_cache(maxsize=65536)
def _series_of(path: Path, changed: int, size: int) -> str:
    """Read what `series_of` gives of a file as it was then."""
    if not is_regular_file(path):
        return ""
    try:
        with LocalFile(path) as file:
            if not is_dicom(file.read_at(0, 132)):
                return ""
            told = read_header(file, _SERIES).elements
    except (InputError, OSError, ValueError):  # told when it is opened
        return ""
    return (
        "".join(told.get("SeriesInstanceUID", ()))
        if told.get("SOPClassUID") == (WHOLE_SLIDE,)
        else ""
    )


def series_in(folder: Path) -> dict[str, list[Path]]:
    """The files of each series that lie in a folder, both in the order of their names.

    Raises:
        InputError: the folder cannot be read.
    """
    return grouped(_beside(folder, DICOM_SUFFIX))


def grouped(files: Sequence[Path]) -> dict[str, list[Path]]:
    """``files`` by their series, without those that are no whole slide image."""
    found: dict[str, list[Path]] = {}
    for file in files:
        if series := series_of(file):
            found.setdefault(series, []).append(file)
    return found


def is_dicom_slide(folder: Path) -> bool:
    """Whether what lies in a folder is one slide in DICOM."""
    try:
        return os.path.isdir(folder) and len(series_in(folder)) == 1
    except InputError:
        return False


def files_of_series(path: Path) -> list[Path]:
    """The files of a slide, which a folder of them names, or one of them.

    Raises:
        InputError: the folder cannot be read, or does not hold just one series.
    """
    if path.is_dir():
        found = list(series_in(path).values())
        if len(found) != 1:
            raise InputError(f"{path}: holds {len(found)} DICOM series: name a file of one of them")
        return found[0]
    series = series_of(path)
    return [
        file
        for file in _beside(path.parent, path.suffix.lower())
        if file.name == path.name or (series and series_of(file) == series)
    ]


def _beside(folder: Path, suffix: str) -> list[Path]:
    try:
        return sorted(
            path
            for path in folder.iterdir()
            if path.suffix.lower() == suffix and not path.name.startswith(".")
        )
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {one_line(error)}") from error
