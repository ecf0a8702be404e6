"""What a model predicts of a slide, as far as it is known, read as a mask is."""

from collections.abc import Sequence

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from genselfdiff.errors import InputError
from genselfdiff.live.blocks import Picture, blocks_in
from genselfdiff.live.predictions import Predictions
from genselfdiff.live.views import View
from genselfdiff.viewer.corrections.beginnings import NotPredicted
from genselfdiff.viewer.corrections.field_labels import Box
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
        NotPredicted: the model is not read yet.
        InputError: it cannot be.
    """

    has_cores = False

    def __init__(self, library: Library, predictions: Predictions, slide: int, model: int) -> None:
        opened = library.open(slide)
        self._slide, self._predictions = opened.tiles.slide, predictions
        self._picture = Picture(model, slide)
        self._model = told = predictions.models[model]
        self.mpp = opened.mpp
        if not told.classes:
            raise InputError(told.error) if told.error else NotPredicted
        self.names = [name for name, _ in told.classes]
        self.colours = [colour for _, colour in told.classes]

    def expect(self, boxes: Sequence[Box]) -> None:
        """See ``viewer.corrections.beginnings.Predicted``."""
        blocks = [b for box in boxes for b in blocks_in(box.x, box.y, box.width, box.height)]
        if not self._predictions.store.missing(self._picture, blocks):
            return
        error = self._model.error or self._predictions.error(self._picture)
        if error:
            raise InputError(error)
        self._predictions.look(View((self._picture,), tuple(dict.fromkeys(blocks))))
        raise NotPredicted

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Uint8:
        """(height, width) classes of a window, of level 0.

        Raises:
            NotPredicted, InputError: as ``expect``.
        """
        self.expect([Box(x, y, width, height)])
        size = self._slide.width, self._slide.height
        found = np.zeros((height, width), np.uint8)
        for block in blocks_in(x, y, width, height):
            left, top, _, _ = block.window(*size)
            tile = self._predictions.store.tile(self._picture, TilePlace(level, *block), *size)
            labels, known = np.moveaxis(imagecodecs.png_decode(tile), 2, 0)
            rows = slice(max(y - top, 0), y + height - top)
            columns = slice(max(x - left, 0), x + width - left)
            if not known[rows, columns].all():  # it had to go for others meanwhile
                raise NotPredicted
            part = labels[rows, columns]
            y0, x0 = max(top - y, 0), max(left - x, 0)
            found[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]] = part
        return found

    def cores(self, x: int, y: int, width: int, height: int) -> NDArray[np.bool_]:
        """Raise NotImplementedError: see ``has_cores``."""
        raise NotImplementedError
