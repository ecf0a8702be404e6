"""Predicting what is on the screen, in the process that does nothing else.

It is told of models, and which blocks are wanted, the most wanted first; it tells what the models
are, and sends blocks. Whatever is told anew is obeyed from the next tile on.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from queue import SimpleQueue
from typing import IO, Any

import torch

from genselfdiff.errors import GsdError, InputError, one_line, outside_cause
from genselfdiff.inference.predictor import Predictor
from genselfdiff.live.blocks import Block, Picture
from genselfdiff.live.messages import send
from genselfdiff.live.slide_prediction import SlidePrediction, TileAt
from genselfdiff.models.model_file import find_model
from genselfdiff.segmenting.options import Options
from genselfdiff.storage.places import place_of

_OPEN_AT_ONCE = 4
"""Slides with what is predicted of them."""

_REMEMBERED = 20.0
"""Seconds of work from which the speed is told."""


class Worker:
    """Predicts what is wanted.

    Args:
        slides: addresses of the slides.
        options: as of ``gsd segment``.
        output: where to send to.
    """

    def __init__(self, slides: list[str], options: Options, output: IO[bytes]) -> None:
        self._slides, self._options, self._output = slides, options, output
        self._told = threading.Condition()
        self._wanted: list[tuple[Picture, list[Block]]] = []
        self._unread: deque[tuple[int, str]] = deque()
        self._predictors: dict[int, Predictor] = {}
        self._open: OrderedDict[Picture, SlidePrediction] = OrderedDict()
        self._pixels, self._seconds = 0.0, 0.0

    def listen(self, messages: "SimpleQueue[dict[str, Any]]") -> None:
        """Take what is told, for ever."""
        while True:
            told = messages.get()
            with self._told:
                if "address" in told:
                    self._unread.append((told["model"], told["address"]))
                else:
                    self._wanted = [
                        (Picture(*picture), [Block(*block) for block in blocks])
                        for picture, blocks in told["wanted"]
                    ]
                self._told.notify()

    def work(self) -> None:
        """Predict for ever."""
        while True:
            with self._told:
                self._told.wait_for(lambda: self._unread or self._next_picture())
                unread = self._unread.popleft() if self._unread else None
                picture = self._next_picture()
            if unread is not None:
                self._load(*unread)
            elif picture is not None:
                self._predict(picture)

    def _load(self, model: int, address: str) -> None:
        try:
            options = self._options
            loaded = find_model(address, options.device)
            self._predictors[model] = Predictor(loaded, options.precision, options.tta)
        except (GsdError, OSError, MemoryError, RuntimeError) as error:
            send(self._output, {"model": model, "error": _said(error)})
        else:
            info = loaded.info
            classes = [*zip(info.classes, info.colors, strict=True)]
            send(self._output, {"model": model, "classes": classes})

    def _predict(self, picture: Picture) -> None:
        """Predict what is wanted of a picture, as long as nothing else is wanted more."""
        try:
            prediction = self._prediction(picture)
            prediction.obey()
            begun: deque[tuple[list[TileAt], list[Block]]] = deque()
            since = time.monotonic()
            with prediction.predictor.predict_ahead(
                self._batches(picture, prediction, begun)
            ) as predicted:
                for probabilities in predicted:
                    tiles, blocks = begun.popleft()
                    prediction.add(tiles, probabilities)
                    now = time.monotonic()
                    self._count(len(tiles) * prediction.tile_pixels, now - since)
                    since = now
                    for block in blocks:
                        self._finish(picture, prediction, block)
        except (GsdError, OSError, MemoryError, RuntimeError) as error:
            self._open.pop(picture, None)
            self._give_up(picture)
            send(self._output, {"picture": picture, "error": _said(error)})

    def _prediction(self, picture: Picture) -> SlidePrediction:
        if picture not in self._open:
            predictor = self._predictors.get(picture.model)
            if predictor is None:
                raise InputError("its model could not be read")
            options = self._options
            address = place_of(self._slides[picture.slide])
            source = options.opened(address)
            self._open[picture] = SlidePrediction(source, predictor, options)
            if len(self._open) > _OPEN_AT_ONCE:
                self._open.popitem(last=False)
        self._open.move_to_end(picture)
        return self._open[picture]

    def _batches(
        self,
        picture: Picture,
        prediction: SlidePrediction,
        begun: deque[tuple[list[TileAt], list[Block]]],
    ) -> Iterator[torch.Tensor]:
        """Tiles as they are wanted when they are asked for; ``begun`` tells of those given."""
        while True:
            with self._told:
                is_next = not self._unread and self._next_picture() == picture
                blocks = list(self._wanted[0][1]) if is_next else []
            tiles: list[TileAt] = []
            served: list[Block] = []
            on_the_way = {tile for others, _ in begun for tile in others}
            for block in blocks:
                missing = prediction.missing(block)
                if not missing:
                    self._finish(picture, prediction, block)
                    continue
                wanted = [tile for tile in missing if tile not in on_the_way and tile not in tiles]
                tiles += wanted[: prediction.batch_size - len(tiles)]
                served.append(block)
                if len(tiles) == prediction.batch_size:
                    break
            if not tiles:
                return
            begun.append((tiles, served))
            yield prediction.read(tiles)

    def _finish(self, picture: Picture, prediction: SlidePrediction, block: Block) -> None:
        """Send a block, if it lacks nothing and was not sent before."""
        with self._told:
            is_wanted = any(block in blocks for other, blocks in self._wanted if other == picture)
        if not is_wanted or prediction.missing(block):
            return
        labels = prediction.labels(block)
        told = {"picture": picture, "block": block, "shape": labels.shape, "speed": self._speed()}
        send(self._output, told, labels.tobytes())
        with self._told:
            for other, blocks in self._wanted:
                if other == picture and block in blocks:
                    blocks.remove(block)

    def _next_picture(self) -> Picture | None:
        """What is wanted most; to be called when nothing else is told."""
        while self._wanted and not self._wanted[0][1] and self._wanted[0][0] in self._open:
            del self._wanted[0]
        return self._wanted[0][0] if self._wanted else None

    def _give_up(self, picture: Picture) -> None:
        with self._told:
            self._wanted = [(other, b) for other, b in self._wanted if other != picture]

    def _count(self, pixels: float, seconds: float) -> None:
        self._pixels += pixels
        self._seconds += seconds
        if self._seconds > _REMEMBERED:
            self._pixels, self._seconds = self._pixels / 2, self._seconds / 2

    def _speed(self) -> float:
        """Pixels of level 0 a second."""
        return self._pixels / self._seconds if self._seconds else 0.0


def _said(error: BaseException) -> str:
    return outside_cause(error) or one_line(error)
