"""Reading windows of images and slides at a chosen resolution, fast enough to train on.

Small images are decoded and resampled once and kept; slides stay open and are read window by
window. Both are kept per process, because a file handle must not be shared across a fork.
"""

import os
from collections import OrderedDict
from collections.abc import Hashable
from pathlib import Path
from threading import RLock

import numpy as np
from numpy.typing import NDArray

from genselfdiff.slides import ScaledView, Slide, open_slide

CACHED_PIXELS = 1 << 24
"""Images of fewer pixels than this at the target resolution are held whole."""

CACHE_BYTES = 1 << 30
"""Bound on the images that one process holds."""

OPEN_SLIDES = 16
"""Bound on the slides that one process holds open."""

BAND_PIXELS = 1 << 24
"""Level-0 pixels that are read at a time while an image is resampled."""


class WindowReader:
    """Reads uint8 HWC windows of files at a resolution; thread-safe."""

    def __init__(self, cache_bytes: int = CACHE_BYTES) -> None:
        self._cache_bytes = cache_bytes
        self._held_bytes = 0
        self._lock = RLock()
        self._images: OrderedDict[Hashable, NDArray[np.uint8]] = OrderedDict()
        self._slides: OrderedDict[Hashable, Slide] = OrderedDict()

    def read(
        self,
        path: Path,
        *,
        source_mpp: float,
        mpp: float,
        window: tuple[int, int, int, int],
        cached: bool,
    ) -> NDArray[np.uint8]:
        """Read ``window`` = (x, y, width, height), in pixels at ``mpp``, of the file at ``path``.

        ``source_mpp`` is the resolution of the file's level 0 in um/px. With ``cached`` the whole
        file is decoded and resampled once and held as uint8 (for small images only).

        Returns:
            uint8 (height, width, 3); may be a view into the cache, so it must not be written to.

        Raises:
            InputError: the file cannot be read.
        """
        x, y, width, height = window
        with self._lock:
            if not cached:
                view = self._slide(path, source_mpp).at_mpp(mpp)
                return view.read(x, y, width, height)
            image = self._image(path, source_mpp, mpp)
            return image[y : y + height, x : x + width]

    def forget_slides(self) -> None:
        """Drop the open slides (after a fork, whose child must not share file positions)."""
        self._lock = RLock()
        self._slides = OrderedDict()

    def _slide(self, path: Path, source_mpp: float) -> Slide:
        key = (path, source_mpp)
        slide = self._slides.get(key)
        if slide is None:
            slide = self._slides[key] = open_slide(path, mpp=source_mpp)
        self._slides.move_to_end(key)
        while len(self._slides) > OPEN_SLIDES:
            self._slides.popitem(last=False)[1].close()
        return slide

    def _image(self, path: Path, source_mpp: float, mpp: float) -> NDArray[np.uint8]:
        key = (path, source_mpp, mpp)
        image = self._images.get(key)
        if image is None:
            with open_slide(path, mpp=source_mpp) as slide:
                image = _read_whole(slide.at_mpp(mpp))
            self._images[key] = image
            self._held_bytes += image.nbytes
        self._images.move_to_end(key)
        while self._held_bytes > self._cache_bytes and len(self._images) > 1:
            self._held_bytes -= self._images.popitem(last=False)[1].nbytes
        return image


def _read_whole(view: ScaledView) -> NDArray[np.uint8]:
    # In bands: at a coarse resolution a small view can stand for a huge level 0.
    image = np.empty((view.height, view.width, 3), np.uint8)
    rows = max(1, int(BAND_PIXELS / (view.width * max(view.scale, 1.0) ** 2)))
    for top in range(0, view.height, rows):
        height = min(rows, view.height - top)
        image[top : top + height] = view.read(0, top, view.width, height)
    return image


shared_reader = WindowReader()
"""The reader of this process: training and validation tiles share its bound."""

if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=shared_reader.forget_slides)
