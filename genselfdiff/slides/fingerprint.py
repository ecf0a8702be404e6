"""What tells the pixels of one slide from those of another, whatever its name."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from genselfdiff.errors import InputError, one_line
from genselfdiff.input_files import open_input

WHOLE = 2**26
"""Bytes of a slide that are read: all of it, or of a larger one as many in samples."""

_SAMPLE = 2**18
"""Bytes read in a piece: a seek costs as much as reading some more."""

_HAMAMATSU = (".vms", ".vmu", ".jpg", ".opt", ".ngr")


def fingerprint(slide: Path) -> str:
    """16 hexadecimal digits of what a slide's files hold; of nothing, if it is not there.

    Up to `WHOLE` bytes are read whole, and where the files lie and when they were written has no
    part in it. Of a larger slide sizes, times of modification and samples spread over all of it
    decide, so that even terabytes take a fraction of a second.

    Raises:
        InputError: a file cannot be read.
    """
    digest = hashlib.sha256()
    folder = slide if slide.is_dir() else slide.parent
    try:
        files = [(path, path.stat()) for path in files_of(slide)]
    except OSError as error:
        raise InputError(f"{slide}: cannot be read: {one_line(error)}") from error
    total = sum(status.st_size for _, status in files)
    for path, status in files:
        size = status.st_size
        name = "" if path == slide else os.fsencode(path.relative_to(folder)).hex()
        digest.update(f"{name} {size}\n".encode())
        if total <= WHOLE:
            places: list[int] = list(range(0, size, _SAMPLE))
        else:
            digest.update(f"{status.st_mtime_ns}\n".encode())
            count = WHOLE // _SAMPLE * size // total
            places = [(size - _SAMPLE) * i // max(count - 1, 1) for i in range(count)]
        if places:
            try:
                with open_input(path) as stream:
                    for place in places:
                        stream.seek(place)
                        digest.update(stream.read(_SAMPLE))
            except OSError as error:
                raise InputError(f"{path}: cannot be read: {one_line(error)}") from error
    return digest.hexdigest()[:16]


def files_of(slide: Path) -> list[Path]:
    """The files that a slide consists of: one for most formats, none if it is not there.

    Of a folder (OME-Zarr) all in it; of MIRAX and Hamamatsu's VMS also those beside the named one.
    """
    suffix = slide.suffix.lower()
    if slide.is_dir():
        files = list(_files_below(slide))
    elif suffix == ".mrxs":
        files = [slide, *_files_below(slide.with_suffix(""))]
    elif suffix in _HAMAMATSU[:2]:
        files = [
            path
            for path in slide.parent.iterdir()
            if path.name.startswith(slide.stem) and path.suffix.lower() in _HAMAMATSU
        ]
    else:
        files = [slide]
    return sorted(path for path in files if path.is_file())


def _files_below(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        yield from (Path(place, name) for name in names)
