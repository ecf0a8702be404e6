"""Reading windows of images and slides at a chosen resolution, fast enough to train on.

Small images are decoded and resampled once and kept in memory; slides stay open and are read window
by window. What can only be decoded in large pieces, as a big PNG, is decoded once into a temporary
file. All are kept per process, because a file handle must not be shared across a fork.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from threading import RLock

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from genselfdiff.data.spool import spooled_image
from genselfdiff.slides import ScaledView, Slide
from genselfdiff.slides.opening import open_counting
from genselfdiff.slides.stored import Damage

CACHED_PIXELS = 1 << 24
"""Images of fewer pixels than this at the target resolution are held whole."""

CACHE_BYTES = 1 << 29
"""Bound on the images that the main process holds, and on those of all its workers together."""

PIECE_PIXELS = 1 << 22
"""An image stored in larger pieces than this is spooled: each tile would decode one at least."""

SPOOLED_PIXELS = 1 << 29
"""Images of more pixels than this at the target resolution are never spooled: 1.6 GB on disk."""

SPOOL_BYTES = 1 << 32
"""Bound on what the main process has on disk, and on what all its workers together have."""

OPEN_SLIDES = 16
"""Bound on the slides that one process holds open."""

BAND_PIXELS = 1 << 24
"""Level-0 pixels that are read at a time while a whole image is resampled."""


class WindowReader:
    """Reads uint8 HWC windows of files at a resolution; thread-safe."""

    def __init__(self, cache_bytes: int = CACHE_BYTES, spool_bytes: int = SPOOL_BYTES) -> None:
        self._lock = RLock()
        self._held = _Recent(cache_bytes)
        self._spooled = _Recent(spool_bytes)
        self._slides: OrderedDict[Hashable, Slide] = OrderedDict()
        self._damage: dict[Path, Damage] = {}
        self._given: set[tuple[Path, str]] = set()

    def open(
        self, path: Path, mpp: float | None = None, on_error: str = "fail", icc: bool = False
    ) -> Slide:
        """Open a slide as `open_slide` does.

        What is damaged and becomes glass is warned of once in this process, however often the
        slide is opened.
        """
        damage = Damage(path, on_error)
        if damage.is_tolerated:
            damage = self._damage.setdefault(path, damage)
        return open_counting(damage, mpp=mpp, icc=icc)

    def damage(self) -> list[tuple[Path, str]]:
        """What was damaged and became glass until now, with its file, for `note_damage`."""
        return [(path, piece) for path, damage in self._damage.items() for piece in damage.pieces]

    def new_damage(self) -> list[tuple[Path, str]]:
        """The same without what this has given before."""
        found = [damage for damage in self.damage() if damage not in self._given]
        self._given.update(found)
        return found

    def note_damage(self, found: list[tuple[Path, str]]) -> None:
        """Count what another process has found, and warn of it where it is new."""
        for path, piece in found:
            self._damage.setdefault(path, Damage(path, "blank")).note(piece)

    def blank_tiles(self) -> dict[Path, int]:
        """Stored tiles that were damaged and taken for glass until now, by file."""
        return {path: damage.count for path, damage in self._damage.items() if damage.count}

    def read(
        self,
        path: Path,
        *,
        source_mpp: float,
        mpp: float,
        window: tuple[int, int, int, int],
        cached: bool,
        on_error: str = "fail",
        icc: bool = False,
    ) -> NDArray[np.uint8]:
        """Read ``window`` = (x, y, width, height), in pixels at ``mpp``, of the file at ``path``.

        ``source_mpp`` is the resolution of the file's level 0 in um/px. With ``cached`` the whole
        file is decoded and resampled once and held as uint8 (for small images only). ``on_error``
        and ``icc`` are as for `open_slide`.

        Returns:
            uint8 (height, width, 3); may be a view of what is kept, so it must not be written to.

        Raises:
            InputError: the file cannot be read.
            OutputError: there is no room for a temporary file.
        """
        x, y, width, height = window
        key = (path, source_mpp, mpp, on_error, icc)

        def hold() -> NDArray[np.uint8]:
            with self.open(path, source_mpp, on_error, icc) as slide:
                return _whole(slide.at_mpp(mpp))

        def spool() -> NDArray[np.uint8]:
            with self.open(path, source_mpp, on_error, icc) as slide:
                view = slide.at_mpp(mpp)
                return spooled_image(_bands(view), view.width)

        with self._lock:
            if cached:
                image = self._held.get(key, hold)
            else:
                slide = self._slide(path, source_mpp, on_error, icc)
                view = slide.at_mpp(mpp)
                if (
                    slide.piece_pixels(view.level) <= PIECE_PIXELS
                    or view.width * view.height > SPOOLED_PIXELS
                ):
                    return view.read(x, y, width, height)
                image = self._spooled.get(key, spool)
            return image[y : y + height, x : x + width]

    def forget_slides(self) -> None:
        """Drop the open slides (after a fork, whose child must not share file positions)."""
        self._lock = RLock()
        self._slides = OrderedDict()

    def _slide(self, path: Path, source_mpp: float, on_error: str, icc: bool) -> Slide:
        key = (path, source_mpp, on_error, icc)
        slide = self._slides.get(key)
        if slide is None:
            slide = self._slides[key] = self.open(path, source_mpp, on_error, icc)
        self._slides.move_to_end(key)
        while len(self._slides) > OPEN_SLIDES:
            self._slides.popitem(last=False)[1].close()
        return slide


class _Recent:
    """The images used last, within a number of bytes that all workers of a loader share."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._bytes = 0
        self._images: OrderedDict[Hashable, NDArray[np.uint8]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        image = self._images.get(key)
        if image is None:
            image = self._images[key] = make()
            self._bytes += image.nbytes
        self._images.move_to_end(key)
        worker = get_worker_info()
        most = self._most if worker is None else self._most // worker.num_workers
        while self._bytes > most and len(self._images) > 1:
            self._bytes -= self._images.popitem(last=False)[1].nbytes
        return image


def _whole(view: ScaledView) -> NDArray[np.uint8]:
    image = np.empty((view.height, view.width, 3), np.uint8)
    top = 0
    for band in _bands(view):
        image[top : top + len(band)] = band
        top += len(band)
    return image


def _bands(view: ScaledView) -> Iterator[NDArray[np.uint8]]:
    # At a coarse resolution a small view can stand for a huge level 0.
    rows = max(1, int(BAND_PIXELS / (view.width * max(view.scale, 1.0) ** 2)))
    for top in range(0, view.height, rows):
        yield view.read(0, top, view.width, min(rows, view.height - top))


shared_reader = WindowReader()
"""The reader of this process: training and validation tiles share its bound."""

if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=shared_reader.forget_slides)
