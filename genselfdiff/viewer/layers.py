"""A mask or the probabilities of its classes, as tiles of one byte a pixel at any zoom."""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from tifffile import TiffFile, TiffPage

from genselfdiff.errors import InputError
from genselfdiff.masks import MaskReader
from genselfdiff.masks.mask_cores import MaskCores
from genselfdiff.slides.formats import check_directories, is_tiff
from genselfdiff.storage.stored_file import LocalFile

Uint8 = NDArray[np.uint8]
Colour = tuple[int, int, int]

_UNTOLD = ((230, 25, 75), (60, 180, 75), (0, 130, 200), (245, 130, 48), (145, 30, 180))
"""Colours of classes where the mask has none."""


class Layer:
    """An open mask, or an open file of probabilities, with its pyramid.

    Args:
        path: the file.

    Attributes:
        path: the file.
        width, height: size in pixels.
        mpp: micrometres per pixel; None: the file does not tell.
        kind: "mask" or "probabilities".
        names, colours: of the classes.
        pixels: of each class, as far as the file tells.

    Raises:
        InputError: the file is none, or damaged.
    """

    def __init__(self, path: Path) -> None:
        planes = planes_of(path) or 1
        self._readers = [MaskReader(path, planes)]
        self._opening = Lock()
        mask = self._readers[0]
        self.path, self.width, self.height, self.mpp = path, mask.width, mask.height, mask.mpp
        self.planes = planes
        self.has_cores = mask.has_cores
        self.kind = "mask" if planes == 1 else "probabilities"
        count = len(mask.class_names) if planes == 1 else planes
        if not count:  # a mask of another program: its smallest picture tells the classes
            with MaskReader(path, planes, mask.levels - 1) as smallest:
                count = 1 + max(int(band.max(initial=0)) for band in smallest.bands())
        self.names = [mask.name_of(label) for label in range(count)]
        self.colours = [colour_of(label, mask.palette) for label in range(count)]
        pixels = mask.description.get("pixels")
        counted = isinstance(pixels, list) and all(isinstance(number, int) for number in pixels)
        self.pixels: list[int] = pixels if isinstance(pixels, list) and counted else []

    def close(self) -> None:
        """Release the files."""
        for reader in self._readers:
            reader.close()

    def read(self, level: int, x: int, y: int, width: int, height: int, plane: int = 0) -> Uint8:
        """Read a window of the layer made 2 ** ``level`` times smaller, sizes rounded up.

        Args:
            level: 0 is the layer itself.
            x, y, width, height: the window.
            plane: class of the probabilities that are read; 0 in a mask.

        Raises:
            InputError: the stored pixels are damaged.
            ValueError: the window is empty or leaves the layer.
        """
        stored = min(level, self._readers[0].levels - 1)
        return self._reader(stored).read(
            x, y, width, height, step=1 << (level - stored), plane=plane
        )

    def cores(self, x: int, y: int, width: int, height: int) -> NDArray[np.bool_]:
        """Where the cores of objects are in a window of a mask that ``has_cores``.

        Raises:
            InputError: as ``read``.
        """
        return MaskCores(self._readers[0])(x, y, width, height)

    def _reader(self, level: int) -> MaskReader:
        with self._opening:
            while len(self._readers) <= level:
                reader = MaskReader(self.path, self.planes, len(self._readers))
                self._readers.append(reader)
            return self._readers[level]


def planes_of(path: Path) -> int | None:
    """How many bytes a pixel of a TIFF has, each in a plane of its own; None: it is no such file.

    That is 1 for a mask, and the number of classes for probabilities.
    """
    try:
        with LocalFile(path) as file:
            if not is_tiff(file.read_at(0, 16)):
                return None
            check_directories(file)
            with TiffFile(file.stream()) as tiff:
                page = tiff.pages[0]
                if not isinstance(page, TiffPage) or page.dtype != np.uint8:
                    return None
                planes = page.samplesperpixel
                return planes if planes == 1 or page.planarconfig == 2 else None
    except InputError:
        return None
    except Exception:  # damaged tags fail in many ways inside tifffile
        return None


def colour_of(label: int, palette: Sequence[Colour] = ()) -> Colour:
    """That of a class in its palette, or one for it where there is none."""
    return palette[label] if label < len(palette) else _UNTOLD[(label - 1) % len(_UNTOLD)]
