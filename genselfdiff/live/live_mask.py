"""What a model predicts of a slide, as far as it is known, read as a mask is."""

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from genselfdiff.errors import InputError
from genselfdiff.live.blocks import Picture, blocks_in
from genselfdiff.live.predictions import Predictions
from genselfdiff.viewer.library import Library
from genselfdiff.viewer.tiles import TilePlace

Uint8 = NDArray[np.uint8]


class LiveMask:
    """A mask that is being predicted; see ``viewer.layers.Layer``.

    Args:
        library: the slides.
        predictions: of them.
        slide, model: numbers of both.

    Attributes:
        mpp: micrometres per pixel of the slide; None: unknown.
        names, colours: of the classes.
        has_cores: cores of objects are not kept.

    Raises:
        LookupError: there is no such slide or model.
        InputError: the model is not read yet.
    """

    has_cores = False

    def __init__(self, library: Library, predictions: Predictions, slide: int, model: int) -> None:
        opened = library.open(slide)
        self._slide, self._store = opened.tiles.slide, predictions.store
        self._picture = Picture(model, slide)
        self.mpp = opened.mpp
        told = predictions.models[model]
        if not told.classes:
            raise InputError(told.error or "the model is being read: wait a moment")
        self.names = [name for name, _ in told.classes]
        self.colours = [colour for _, colour in told.classes]

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Uint8:
        """(height, width) classes of a window, of level 0.

        Raises:
            InputError: not all of it is predicted.
        """
        size = self._slide.width, self._slide.height
        found = np.zeros((height, width), np.uint8)
        for block in blocks_in(x, y, width, height):
            left, top, _, _ = block.window(*size)
            tile = self._store.tile(self._picture, TilePlace(level, *block), *size)
            labels, known = np.moveaxis(imagecodecs.png_decode(tile), 2, 0)
            rows = slice(max(y - top, 0), y + height - top)
            columns = slice(max(x - left, 0), x + width - left)
            if not known[rows, columns].all():
                raise InputError(
                    "not all of the field is predicted yet: wait until it is shown, then frame it"
                )
            part = labels[rows, columns]
            y0, x0 = max(top - y, 0), max(left - x, 0)
            found[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]] = part
        return found

    def cores(self, x: int, y: int, width: int, height: int) -> NDArray[np.bool_]:
        """Raise NotImplementedError: see ``has_cores``."""
        raise NotImplementedError
