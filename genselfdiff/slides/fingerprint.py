"""What tells the pixels of one slide from those of another, whatever its name."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from genselfdiff.errors import InputError, one_line
from genselfdiff.input_files import open_input
from genselfdiff.slides.discovery import IMAGE_SUFFIXES
from genselfdiff.slides.formats.dicom.series import (
    files_of_series,
    is_dicom_slide,
    series_of,
)
from genselfdiff.slides.formats.ome_companion import (
    COMPANION_SUFFIX,
    companions_of,
    file_of_slide,
)
from genselfdiff.slides.formats.ome_planes import files_of_planes
from genselfdiff.storage.listing import contents_of, is_folder
from genselfdiff.storage.places import Place, Url, local_paths
from genselfdiff.storage.remote_file import RemoteFile

WHOLE = 2**26
"""Bytes of a slide that are read: all of it, or of a larger one as many in samples."""

_SAMPLE = 2**18
"""Bytes read in a piece: a seek costs as much as reading some more."""

_SAMPLES = 16
"""Read of a larger slide by URL: as many as are fetched at a time."""

_SETTLED = 2 * 10**9
"""Nanoseconds: file systems tell the time of a change in steps, the coarsest in these."""

_known: dict[Place, tuple[tuple[object, ...], str]] = {}
"""The slide that was looked at last: nothing of it is read again where nothing was written."""

_HAMAMATSU = (".vms", ".vmu", ".jpg", ".opt", ".ngr")


def fingerprint(slide: Place) -> str:
    """16 hexadecimal digits of what a slide's files hold; of nothing, if it is not there.

    Up to `WHOLE` bytes are read whole, and where the files lie and when they were written has no
    part in it. Of a larger slide sizes, times of modification and samples spread over all of it
    decide, so that even terabytes take a fraction of a second.

    A slide by URL that is read whole has the fingerprint of the same file on a disk. Of a larger
    one size, ETag (or version, or where there is neither, the time of modification) and samples
    decide: then a copy elsewhere, or one uploaded in other parts, counts as another slide. Of an
    OME-Zarr by URL names, sizes and ETags of all its objects do. Of DICOM each file of the series
    counts so.

    Raises:
        InputError: a file cannot be read.
    """
    if isinstance(slide, Url):
        return _of_zarr(slide) if slide.suffix.lower() == ".zarr" else _of_url(slide)
    digest = hashlib.sha256()
    folder = slide if slide.is_dir() else slide.parent
    try:
        files = [(path, path.stat()) for path in files_of(slide)]
    except OSError as error:
        raise InputError(f"{slide}: cannot be read: {one_line(error)}") from error
    stamp = tuple((path, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for path, s in files)
    if (known := _known.get(slide)) is not None and known[0] == stamp:
        return known[1]
    began = time.time_ns()
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
    result = digest.hexdigest()[:16]
    # What was changed this moment could be changed again without another time of change.
    if all(began - status.st_ctime_ns > _SETTLED for _, status in files):
        _known.clear()
        _known[slide] = stamp, result
    return result


def _of_url(url: Url) -> str:
    places: list[Place] = [url]
    may_be_dicom = url.suffix.lower() not in IMAGE_SUFFIXES
    if is_folder(url) or (may_be_dicom and series_of(url)):
        places = files_of_series(url)
    elif url.name.lower().endswith(COMPANION_SUFFIX):
        places = [url, file_of_slide(url)]
    urls = [place for place in places if isinstance(place, Url)]
    with ExitStack() as opened:
        files = [opened.enter_context(RemoteFile(place)) for place in urls]
        stamp = tuple((file.place, file.size, file.stamp) for file in files)
        if (known := _known.get(url)) is not None and known[0] == stamp:
            return known[1]
        total = sum(file.size for file in files)
        digest = hashlib.sha256()
        for file in files:
            name = "" if file.place == url else os.fsencode(file.place.name).hex()
            digest.update(f"{name} {file.size}\n".encode())
            if total <= WHOLE:
                digest.update(file.hold_whole())
                continue
            digest.update(f"{file.stamp}\n".encode())
            count = _SAMPLES * file.size // total
            last = file.size - _SAMPLE
            samples = [(last * i // max(count - 1, 1), _SAMPLE) for i in range(count)]
            file.want(samples)
            for sample in samples:
                digest.update(file.read_at(*sample))
    result = digest.hexdigest()[:16]
    if all(file.stamp for file in files):
        _known.clear()
        _known[url] = stamp, result
    return result


def _of_zarr(url: Url) -> str:
    digest = hashlib.sha256()
    for name, size, stamp in contents_of(url):
        digest.update(f"{os.fsencode(name).hex()} {size} {stamp}\n".encode())
    return digest.hexdigest()[:16]


def files_of(slide: Path) -> list[Path]:
    """The files that a slide consists of: one for most formats, none if it is not there.

    Of a folder (OME-Zarr) all in it; of MIRAX and Hamamatsu's VMS also those beside the named one;
    of DICOM those of the series; of OME-TIFFs those that have its metadata, or its red, green and
    blue.
    """
    suffix = slide.suffix.lower()
    if is_dicom_slide(slide) or series_of(slide):
        files = local_paths(files_of_series(slide))
    elif slide.is_dir():
        files = list(_files_below(slide))
    elif suffix == ".mrxs":
        files = [slide, *_files_below(slide.with_suffix(""))]
    elif suffix in _HAMAMATSU[:2]:
        files = [
            path
            for path in slide.parent.iterdir()
            if path.name.startswith(slide.stem) and path.suffix.lower() in _HAMAMATSU
        ]
    elif slide.name.lower().endswith(COMPANION_SUFFIX):
        files = [slide, *_named_by(slide), *files_of_planes(slide)]
    else:
        files = [slide, *companions_of(slide), *files_of_planes(slide)] if slide.exists() else []
    return sorted(path for path in set(files) if path.is_file())


def _named_by(companion: Path) -> list[Path]:
    try:
        return local_paths([file_of_slide(companion)])
    except InputError:  # told when it is opened
        return []


def _files_below(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        yield from (Path(place, name) for name in names)
