"""Slides in formats of scanner makers, which OpenSlide reads if it is installed."""

import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tifffile import TiffFile, TiffPage

from genselfdiff.errors import InputError, one_line
from genselfdiff.slides.formats.tiff_directories import check_directories, is_tiff
from genselfdiff.slides.stored.damage import Damage, Unreadable
from genselfdiff.slides.stored.pixel_format import over_white
from genselfdiff.slides.stored.stated_resolution import PixelSize, believed
from genselfdiff.slides.stored.stored_image import StoredImage, StoredLevel
from genselfdiff.storage.places import Place, Url
from genselfdiff.storage.stored_file import LocalFile

Uint8 = NDArray[np.uint8]

OPENSLIDE_SUFFIXES = frozenset({".bif", ".mrxs", ".ndpi", ".scn", ".svslide", ".vms"})
"""Lower-case endings of slides that are left to OpenSlide.

Some are TIFFs, but what their pages hold is no plain pyramid: tiles that overlap (.bif), several
areas of the glass and its photograph (.scn), or one JPEG stream of gigapixels (.ndpi).
"""

_XMP, _NDPI = 700, 65420

_PIECE = 512
"""Side in pixels of what is asked of OpenSlide at once."""

_TRIAL = """
import resource, sys
from openslide import OpenSlide
_, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, hard))
slide = OpenSlide(sys.argv[1])
width, height = slide.dimensions
for level in range(slide.level_count):
    slide.read_region((width // 2, height // 2), level, (1, 1))
"""

_TRIAL_SECONDS = 120


def is_for_openslide(tiff: TiffFile) -> bool:
    """Tell whether a TIFF is one of such slides under another name, by what its makers write."""
    return any(_is_for_openslide(page) for page in tiff.pages if isinstance(page, TiffPage))


def _is_for_openslide(page: TiffPage) -> bool:
    xmp = page.tags.valueof(_XMP, default=b"")
    text = xmp if isinstance(xmp, bytes) else str(xmp).encode()
    return (
        _NDPI in page.tags
        or b"<iScan" in text  # Ventana
        or page.software.startswith("MedScan")  # Trestle
        or "www.leica-microsystems.com/scn/" in page.description
    )


def open_with_openslide(path: Place, damage: Damage) -> StoredImage:
    """Open a slide with OpenSlide.

    Of a scan that tells which part of the glass it covers, that part is taken for the slide, as
    QuPath does. Photographs of label and glass are no part of it.

    Raises:
        InputError: OpenSlide is not installed, or cannot open the file, which must be local.
    """
    if isinstance(path, Url):
        raise InputError(
            f"{path}: slides of this kind are read through OpenSlide, which reads no URLs: copy the"
            " file, with those that belong to it, and name the copy"
        )
    slide = _Handle(path)
    _check_tiff(path)
    _try_in_another_process(path)
    properties = slide.open().properties
    x, y, width, height = _bounds(properties, slide.open().dimensions)
    levels = []
    for index, downsample in enumerate(slide.open().level_downsamples):
        across, down = slide.open().level_dimensions[index]
        size = min(across, round(width / downsample)), min(down, round(height / downsample))
        if min(size) > 0:
            levels.append(_OpenSlideLevel(slide, damage, index, downsample, (x, y), size))
    if not levels:
        raise InputError(f"{path}: is {width} x {height} pixels: there is nothing to read")
    mpp, doubt = believed(_stated_size(properties))
    return StoredImage(tuple(levels), mpp, doubt, _icc(slide.open()), slide.close)


class _Handle:
    """An open slide; in a forked process it is opened anew, for the parent's may be locked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._library = _library(path)
        self._lock = threading.Lock()
        self._process = 0
        self._slide: Any = None

    def open(self) -> Any:
        if self._process != os.getpid():
            with self._lock:
                if self._process != os.getpid():
                    self._inherited = self._slide  # closing it would take its locks
                    self._slide = self._opened()
                    self._process = os.getpid()
        return self._slide

    def close(self) -> None:
        if self._slide is not None and self._process == os.getpid():
            self._slide.close()

    def _opened(self) -> Any:
        try:
            return self._library.OpenSlide(self.path)
        except (self._library.OpenSlideError, OSError) as error:
            raise InputError(
                f"{self.path}: OpenSlide cannot open it ({one_line(error)}); is it whole, with the"
                " files that belong to it beside it?"
            ) from error

    def read(self, x: int, y: int, level: int, width: int, height: int) -> Uint8:
        """Read (height, width, 3) at level-0 pixel (x, y).

        Raises:
            Unreadable: the pixels are damaged.
        """
        shared = self.open()
        area = (x, y), level, (width, height)
        try:
            region = shared.read_region(*area)
        except (self._library.OpenSlideError, OSError):
            # After an error OpenSlide refuses everything, and it may have been another thread's.
            with self._lock:
                if self._slide is shared:
                    self._slide = self._opened()
            region = self._read_alone(*area)
        return over_white(np.asarray(region))

    def _read_alone(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> Any:
        slide = self._opened()
        try:
            return slide.read_region(corner, level, size)
        except (self._library.OpenSlideError, OSError) as error:
            raise Unreadable(f"area at ({corner[0]}, {corner[1]}) of level 0", error) from error
        finally:
            slide.close()


class _OpenSlideLevel(StoredLevel):
    def __init__(
        self,
        slide: _Handle,
        damage: Damage,
        index: int,
        downsample: float,
        origin: tuple[int, int],
        size: tuple[int, int],
    ) -> None:
        super().__init__(*size, _PIECE, _PIECE, damage)
        self._slide = slide
        self._index = index
        self._downsample = downsample
        self._origin = origin

    def decode(self, column: int, row: int) -> Uint8:
        x, y = column * _PIECE, row * _PIECE
        return self._slide.read(
            self._origin[0] + round(x * self._downsample),
            self._origin[1] + round(y * self._downsample),
            self._index,
            min(_PIECE, self.width - x),
            min(_PIECE, self.height - y),
        )


def _check_tiff(path: Path) -> None:
    """Refuse a TIFF that claims what its size forbids: OpenSlide would ask for that much memory.

    An .ndpi can be larger than its directories can say, in a way of its own.
    """
    with LocalFile(path) as file:
        if path.suffix.lower() == ".ndpi" or not is_tiff(file.read_at(0, 16)):
            return
        try:
            check_directories(file, pieces=True)
        except ValueError as error:
            raise InputError(f"{path}: is no readable slide ({error}); is it whole?") from error


def _try_in_another_process(path: Path) -> None:
    """Refuse a file that crashes OpenSlide, which ends the process where memory cannot be had."""
    try:
        status = subprocess.run(
            [sys.executable, "-c", _TRIAL, path], capture_output=True, timeout=_TRIAL_SECONDS
        ).returncode
    except subprocess.TimeoutExpired:
        status = -1
    if status < 0:
        raise InputError(
            f"{path}: OpenSlide crashes on it, or does not end; the file must be damaged: copy or"
            " export it again"
        )


def _library(path: Path) -> ModuleType:
    try:
        import openslide
    except (ImportError, OSError) as error:  # OSError: without the C library
        raise InputError(
            f"{path}: slides of this kind are read through OpenSlide, which is not installed: pip"
            " install 'genselfdiff[openslide]', or convert the slide to a tiled TIFF"
        ) from error
    return openslide


def _bounds(
    properties: Mapping[str, str], dimensions: tuple[int, int]
) -> tuple[int, int, int, int]:
    """(x, y, width, height) in level-0 pixels of what was scanned; all if that is not told."""
    try:
        x, y, width, height = (
            int(properties[f"openslide.bounds-{name}"]) for name in ("x", "y", "width", "height")
        )
    except (KeyError, ValueError):
        return 0, 0, *dimensions
    inside = x >= 0 and y >= 0 and x + width <= dimensions[0] and y + height <= dimensions[1]
    return (x, y, width, height) if inside else (0, 0, *dimensions)


def _stated_size(properties: Mapping[str, str]) -> PixelSize | None:
    try:
        x, y = (float(properties[f"openslide.mpp-{axis}"]) for axis in "xy")
    except (KeyError, ValueError):
        return None
    return PixelSize(x, y, "OpenSlide properties")


def _icc(slide: Any) -> bytes:
    profile = slide.color_profile
    return b"" if profile is None else bytes(profile.tobytes())
