"""OME-Zarr images (versions 0.4 and 0.5), which the zarr package reads if it is installed."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genselfdiff.errors import InputError, one_line
from genselfdiff.slides.stored.damage import Damage, Unreadable
from genselfdiff.slides.stored.lengths import micrometres
from genselfdiff.slides.stored.stated_resolution import PixelSize, believed
from genselfdiff.slides.stored.stored_image import (
    MAX_PIXELS_AT_ONCE,
    StoredImage,
    StoredLevel,
    is_absurd,
    is_reduction,
)
from genselfdiff.storage.listing import contents_of
from genselfdiff.storage.places import Place, Url

Uint8 = NDArray[np.uint8]

ZARR_SUFFIX = ".zarr"
"""Lower-case ending of folders that are one slide."""

_MARKS = ("zarr.json", ".zattrs", ".zgroup")

_AT_LEAST = 256
"""Side in pixels of what is read at once where the stored chunks are smaller."""
_MOST_LEVELS = 64


def is_zarr(path: Place) -> bool:
    """Tell whether a folder is a Zarr, by its name or, on this machine, what lies in it."""
    if isinstance(path, Url):
        return path.suffix.lower() == ZARR_SUFFIX
    return os.path.isdir(path) and (
        path.suffix.lower() == ZARR_SUFFIX or any((path / mark).is_file() for mark in _MARKS)
    )


def open_zarr(path: Place, damage: Damage) -> StoredImage:
    """Open the first multiscale image of an OME-Zarr, of 3 channels of 8 bits.

    Raises:
        InputError: zarr is not installed, or this is no such image, or damaged.
    """
    library = _library(path)
    try:
        image, arrays = _first_image(library.open_group(_store(path)))
        names = [_axis_name(axis) for axis in image["axes"]]
        levels = [
            _ZarrLevel(array, names, index, damage, library.bounded)
            for index, (array, _) in enumerate(arrays)
        ]
        stated = _stated_size(image, arrays[0][1], names)
    except InputError:
        raise
    except Exception as error:  # damaged metadata fail in many ways inside zarr
        raise InputError(
            f"{path}: is no readable OME-Zarr image ({one_line(error)}); is it whole?"
        ) from error
    main = levels[0]
    reduced = [
        level
        for level in levels[1:]
        if is_reduction((main.width, main.height), (level.width, level.height))
    ]
    reduced.sort(key=lambda level: -level.width)
    return StoredImage((main, *reduced), *believed(stated), b"", lambda: None)


class _ZarrLevel(StoredLevel):
    def __init__(
        self,
        array: Any,
        names: Sequence[str],
        index: int,
        damage: Damage,
        bounded: Callable[[Any, int], Any],
    ) -> None:
        if len(array.shape) != len(names):
            raise ValueError(f"its axes are {len(names)}, those of its array {len(array.shape)}")
        sizes = dict(zip(names, array.shape, strict=True))
        chunks = dict(zip(names, array.chunks, strict=True))
        others = {name: size for name, size in sizes.items() if name not in ("c", "y", "x")}
        if sizes.get("c") != 3 or array.dtype != np.uint8 or set(others.values()) - {1}:
            shape = " x ".join(f"{name} {size}" for name, size in sizes.items())
            raise InputError(
                f"{damage.path}: is {shape} of {array.dtype}; an RGB image of 3 channels of uint8,"
                " one plane and one time, is expected"
            )
        if min(sizes["x"], sizes["y"], *chunks.values()) < 1:
            raise ValueError(f"it is {sizes['x']} x {sizes['y']} pixels")
        across, down = (chunks[axis] * max(1, _AT_LEAST // chunks[axis]) for axis in "xy")
        largest = max(math.prod(array.chunks) / 3, across * down)
        if largest > MAX_PIXELS_AT_ONCE:
            raise InputError(
                f"{damage.path}: is stored in chunks of {chunks['x']} x {chunks['y']} pixels, too"
                " large to decode in bounded memory; write it with smaller chunks"
            )
        stored = _stored_bytes(damage.path / array.path, sizes["x"] * sizes["y"])
        if is_absurd(sizes["x"], sizes["y"], stored):
            raise InputError(
                f"{damage.path}: claims {sizes['x']} x {sizes['y']} pixels, but is far too small"
                " for them"
            )
        super().__init__(sizes["x"], sizes["y"], across, down, damage)
        self._array = bounded(array, 3 * across * down)
        self._names = names
        self._index = index

    def decode(self, column: int, row: int) -> Uint8:
        x, y = column * self.piece_width, row * self.piece_height
        wanted = {
            "c": slice(0, 3),
            "y": slice(y, min(y + self.piece_height, self.height)),
            "x": slice(x, min(x + self.piece_width, self.width)),
        }
        try:
            stored = np.asarray(self._array[tuple(wanted.get(name, 0) for name in self._names)])
        except (MemoryError, InputError):  # of the whole image, not of this tile
            raise
        except Exception as error:  # every codec has errors of its own
            where = f"tile (column {column}, row {row}) of level {self._index}"
            raise Unreadable(f"{where}, array {self._array.path},", error) from error
        left = [name for name in self._names if name in wanted]
        return np.ascontiguousarray(stored.transpose([left.index(name) for name in "yxc"]))


def _store(path: Place) -> Any:
    if isinstance(path, Url):
        from genselfdiff.slides.formats.zarr_by_url import store_of

        return store_of(path)
    from genselfdiff.slides.formats.zarr_bounds import FolderStore

    return FolderStore(path)


def _stored_bytes(folder: Place, pixels: int) -> int:
    """Sum up the files in a folder, until they can hold that many pixels."""
    if isinstance(folder, Url):
        return sum(size for _, size, _ in contents_of(folder))
    stored = 0
    for place, _, files in os.walk(folder):
        for name in files:
            stored += Path(place, name).lstat().st_size
            if not is_absurd(pixels, 1, stored):
                return stored
    return stored


def _library(path: Place) -> ModuleType:
    try:
        import zarr  # noqa: F401

        from genselfdiff.slides.formats import zarr_bounds
    except ImportError as error:
        raise InputError(
            f"{path}: OME-Zarr is read by the zarr package, which is not installed: pip install"
            " 'genselfdiff[zarr]', or convert the image to a tiled TIFF"
        ) from error
    return zarr_bounds


def _first_image(group: Any) -> tuple[Mapping[str, Any], list[tuple[Any, Mapping[str, Any]]]]:
    """Return the metadata of the first image in ``group``, and array and dataset of each level."""
    attributes = _ome(group)
    if "multiscales" not in attributes and "bioformats2raw.layout" in attributes:
        group = group["0"]  # the first series: the slide; label and macro come after it
        attributes = _ome(group)
    if "multiscales" not in attributes:
        kind = "a plate of many images: name one of them" if "plate" in attributes else "no image"
        raise ValueError(f"it is {kind}")
    image = attributes["multiscales"][0]
    datasets = image["datasets"]
    if len(datasets) > _MOST_LEVELS:
        raise ValueError(f"it has {len(datasets)} levels, more than any slide")
    arrays = [(group[dataset["path"]], dataset) for dataset in datasets]
    if not arrays or not all(hasattr(array, "chunks") for array, _ in arrays):
        raise ValueError("its levels are missing")
    return image, arrays


def _ome(group: Any) -> Mapping[str, Any]:
    """Return the attributes of version 0.5 (below "ome"), else those of 0.4."""
    attributes = group.attrs.asdict()
    ome = attributes.get("ome", attributes)
    if not isinstance(ome, Mapping):
        raise ValueError("its metadata are damaged")
    return ome


def _axis_name(axis: Any) -> str:
    return str(axis["name"] if isinstance(axis, Mapping) else axis)


def _stated_size(
    image: Mapping[str, Any], dataset: Mapping[str, Any], names: Sequence[str]
) -> PixelSize | None:
    sizes = []
    for axis in "xy":
        place = names.index(axis)
        described = image["axes"][place]
        unit = micrometres(described.get("unit") if isinstance(described, Mapping) else None)
        if unit is None:
            return None
        try:
            sizes.append(_scale(dataset, place) * _scale(image, place) * unit)
        except (ArithmeticError, LookupError, TypeError, ValueError):
            return None
    return PixelSize(sizes[0], sizes[1], "coordinateTransformations")


def _scale(described: Mapping[str, Any], place: int) -> float:
    transformations = described.get("coordinateTransformations", [])
    scales = [each["scale"][place] for each in transformations if each["type"] == "scale"]
    return math.prod(map(float, scales))
