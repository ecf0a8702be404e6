"""Probabilities as OME-Zarr 0.4, for other programs: the tiles of a finished TIFF, as they are.

Both formats store a tile of a class as one zlib stream, so none is unpacked, and no pixel can come
to be another. Chunks of nothing but 0 are left out, as Zarr has it.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from tifffile import TiffFile, TiffPage

from genselfdiff.errors import InputError, OutputError
from genselfdiff.files import writing
from genselfdiff.input_files import open_input, parse_json, read_text
from genselfdiff.masks.mask_reader import MaskReader
from genselfdiff.masks.pyramid_writer import compress

_GROUP = {"zarr_format": 2}
_OURS = "genselfdiff"
"""Key of what a folder tells of itself."""


def write_probability_zarr(tiff: Path, folder: Path, colours: list[tuple[int, int, int]]) -> None:
    """Write the probabilities of a slide as OME-Zarr: axes c, y and x, a channel for each class.

    Args:
        tiff: a file of ``ProbabilityWriter``.
        folder: the Zarr, which appears whole or not at all; one of this function's is replaced.
        colours: of the classes.

    Raises:
        InputError: ``tiff`` cannot be read.
        OutputError: something else is at ``folder``, or it cannot be written.
    """
    if os.path.lexists(folder) and job_of_zarr(folder) is None:
        raise OutputError(f"{folder}: is there, but not of gsd: move it, or name another mask")
    growing = folder.with_name(f".{folder.name}.gsd-part")
    replaced = folder.with_name(f".{folder.name}.gsd-old")
    with writing(folder):
        for path in (growing, replaced):
            _remove(path)
        growing.mkdir()
        try:
            _write(tiff, growing, colours)
            os.sync()  # of a hundred thousand chunks, each for itself would take hours
            if os.path.lexists(folder):
                folder.rename(replaced)
            growing.rename(folder)
        finally:
            _remove(growing)
            _remove(replaced)


def job_of_zarr(folder: Path) -> dict[str, Any] | None:
    """The job that made such a folder, as JSON has it; None: there is none, or it does not tell."""
    if folder.is_symlink():
        return None
    with suppress(InputError, KeyError, TypeError):
        job = parse_json(read_text(folder / ".zattrs"), folder)[_OURS]["job"]
        return job if isinstance(job, dict) else None
    return None


def _write(tiff: Path, folder: Path, colours: list[tuple[int, int, int]]) -> None:
    with open_input(tiff) as stream, TiffFile(stream, name=tiff.name) as file:
        pages = [page for page in file.pages if isinstance(page, TiffPage)]
        with MaskReader(tiff, pages[0].samplesperpixel) as reader:
            told, mpp = reader.description, reader.mpp
        for level, page in enumerate(pages):
            _write_json(folder / str(level) / ".zarray", _array(page))
            for place, data in _tiles(page, stream):
                chunk = folder / str(level) / place
                chunk.parent.mkdir(parents=True, exist_ok=True)
                chunk.write_bytes(data)
        _write_json(folder / ".zgroup", _GROUP)
        _write_json(folder / ".zattrs", _attributes(folder, told, mpp, len(pages), colours))


def _tiles(page: TiffPage, stream: Any) -> Iterator[tuple[str, bytes]]:
    """The place of each tile as chunk that is not all 0, and its bytes."""
    nothing = compress(np.zeros((page.tilelength, page.tilewidth), np.uint8))
    _, rows, columns = _chunks(page)
    for index, (offset, size) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
        stream.seek(offset)
        data = stream.read(size)
        if data != nothing:
            plane, rest = divmod(index, rows * columns)
            row, column = divmod(rest, columns)
            yield f"{plane}/{row}/{column}", data


def _chunks(page: TiffPage) -> tuple[int, int, int]:
    return (
        page.samplesperpixel,
        -(-page.imagelength // page.tilelength),
        -(-page.imagewidth // page.tilewidth),
    )


def _array(page: TiffPage) -> dict[str, Any]:
    return {
        "zarr_format": 2,
        "shape": [page.samplesperpixel, page.imagelength, page.imagewidth],
        "chunks": [1, page.tilelength, page.tilewidth],
        "dtype": "|u1",
        "compressor": {"id": "zlib", "level": 4},
        "fill_value": 0,
        "filters": None,
        "order": "C",
        "dimension_separator": "/",
    }


def _attributes(
    folder: Path,
    told: dict[str, Any],
    mpp: float | None,
    levels: int,
    colours: list[tuple[int, int, int]],
) -> dict[str, Any]:
    name = folder.name.removeprefix(".").partition(".")[0]
    unit = {} if mpp is None else {"unit": "micrometer"}
    scales = [2**level * (mpp or 1) for level in range(levels)]
    return {
        "multiscales": [
            {
                "version": "0.4",
                "name": name,
                "type": "mean",
                "axes": [
                    {"name": "c", "type": "channel"},
                    *({"name": axis, "type": "space", **unit} for axis in "yx"),
                ],
                "datasets": [
                    {
                        "path": str(level),
                        "coordinateTransformations": [
                            {"type": "scale", "scale": [1.0, size, size]}
                        ],
                    }
                    for level, size in enumerate(map(float, scales))
                ],
            }
        ],
        "omero": {
            "version": "0.4",
            "name": name,
            "channels": [
                {
                    "label": label,
                    "color": "{:02X}{:02X}{:02X}".format(*colour),
                    "active": index > 0,
                    "coefficient": 1,
                    "family": "linear",
                    "inverted": False,
                    "window": {"min": 0, "max": 255, "start": 0, "end": 255},
                }
                for index, (label, colour) in enumerate(
                    zip(told.get("classes", ()), colours, strict=True)
                )
            ],
            "rdefs": {"model": "color"},
        },
        _OURS: told,
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _remove(path: Path) -> None:
    """Remove what a killed run has left; a link, which is none of ours, stays and is in the way."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
