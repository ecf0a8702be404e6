"""What the server knows of the process that predicts: models, blocks, and what went wrong."""

import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np

from genselfdiff.errors import ModelError
from genselfdiff.live.blocks import Block, BlockStore, Picture
from genselfdiff.live.messages import receive, send
from genselfdiff.live.views import View, Views
from genselfdiff.models.shipped import catalogue
from genselfdiff.storage.places import Place, Url, place_of
from genselfdiff.text import shown
from genselfdiff.viewer.objects import THREADS

PROCESS = [sys.executable, "-m", "genselfdiff.live.process"]
"""What predicts."""

_KEPT_BYTES = 256 * 2**20
"""Of labels, compressed: a large slide of nuclei, at a fiftieth of a byte a pixel."""

_AHEAD = 64
"""Blocks that the process is told of at once: a view may have thousands."""

Wanted = tuple[Picture, Block | None]
"""A block; None: the slide is to be laid out, and nothing of it to be predicted yet."""

_PATIENCE = 5.0
"""Seconds that the process has to end, once nobody listens to it."""


class Model:
    """A model whose predictions are shown.

    Attributes:
        address: as ``gsd segment --model`` takes it.
        name: for people.
        classes: names and colours, once it is read.
        error: why it cannot be used, else empty.
    """

    def __init__(self, address: str, name: str = "") -> None:
        self.address = address
        self.name = name or name_of(address)
        self.classes: list[tuple[str, tuple[int, int, int]]] = []
        self.error = ""

    def state(self) -> dict[str, Any]:
        """Tell what the page shows of it."""
        classes = [{"name": shown(name), "colour": colour} for name, colour in self.classes]
        return {"name": shown(self.name), "classes": classes, "error": shown(self.error)}


def address_of(model: str | Url) -> str:
    """Where a model is, as text; a file by all of its path.

    Raises:
        ModelError: there is no such file.
    """
    place = place_of(model)
    if isinstance(model, str) and catalogue.name_of(model) is not None:
        return model
    if isinstance(place, Url):
        return place.address
    if not place.exists():
        raise ModelError(f"{place}: there is no such model file")
    return str(place.absolute())


def name_of(address: str) -> str:
    """What a model is called: its own name, or that of its file."""
    return address if catalogue.name_of(address) else place_of(address).name


class Predictions:
    """Predicts what is looked at in a process of its own; threads may use it at once.

    Args:
        slides: all that are shown.
        models: their addresses.
        options: of ``gsd segment``, by name.
    """

    def __init__(
        self, slides: Sequence[Place], models: Sequence[str], options: dict[str, Any]
    ) -> None:
        self.models: list[Model] = []
        self.store = BlockStore(_KEPT_BYTES)
        self.speed = 0.0
        self._views = Views()
        self._errors: dict[Picture, str] = {}
        self._sent: list[Wanted] = []
        self._sending = threading.Lock()
        self._ended = ""
        self._process = subprocess.Popen(
            PROCESS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in the terminal is the server's
        )
        assert self._process.stdin is not None
        self._input = self._process.stdin
        told = [slide.address if isinstance(slide, Url) else str(slide) for slide in slides]
        self._tell({"slides": told, "options": options})
        for model in models:
            self.add(Model(model))
        threading.Thread(target=self._listen, name=f"{THREADS}-live", daemon=True).start()

    def add(self, model: Model) -> None:
        """Have another model read."""
        with self._sending:
            self.models.append(model)
            if self._ended:
                model.error = self._ended
            self._tell({"model": len(self.models) - 1, "address": model.address})

    def look(self, view: View) -> None:
        """Have predicted what is seen, before what was seen before."""
        self._views.look(view)
        self._want()

    def error(self, picture: Picture) -> str:
        """Why a slide is not predicted, else empty."""
        return self._errors.get(picture, "")

    def close(self) -> None:
        """End the process."""
        with suppress(OSError):
            self._input.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _want(self) -> None:
        """Tell the process what is wanted next, unless it knows enough of that."""
        with self._sending:
            wanted: list[Wanted] = []
            for picture, blocks in self._views.wanted(self.store.missing):
                if not self._fails(picture):
                    wanted += [(picture, block) for block in blocks] or [(picture, None)]
            wanted = list(dict.fromkeys(wanted))  # views overlap
            unfinished = [each for each in self._sent if self._is_missing(*each)]
            is_known = wanted[: len(unfinished)] == unfinished
            if is_known and len(unfinished) >= min(_AHEAD // 2, len(wanted)):
                return
            self._sent = wanted[:_AHEAD]
            groups = groupby(self._sent, key=itemgetter(0))
            self._tell(
                {
                    "wanted": [
                        (picture, [block for _, block in each if block is not None])
                        for picture, each in groups
                    ]
                }
            )

    def _is_missing(self, picture: Picture, block: Block | None) -> bool:
        return block is None or bool(self.store.missing(picture, [block]))

    def _fails(self, picture: Picture) -> bool:
        return picture in self._errors or bool(self.models[picture.model].error)

    def _tell(self, told: dict[str, Any]) -> None:
        with suppress(OSError, ValueError):  # it has ended, which `_listen` tells
            send(self._input, told)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        while (message := receive(self._process.stdout)) is not None:
            told, content = message
            if "block" in told:
                picture, block = Picture(*told["picture"]), Block(*told["block"])
                labels = np.frombuffer(content, np.uint8).reshape(told["shape"])
                self.store.put(picture, block, labels)
                self.speed = told["speed"]
            elif "picture" in told:
                self._errors[Picture(*told["picture"])] = told["error"]
            elif "error" in told:
                self.models[told["model"]].error = told["error"]
            else:
                self.models[told["model"]].classes = [
                    (name, tuple(colour)) for name, colour in told["classes"]
                ]
            self._want()
        status = self._process.wait()
        with self._sending:
            self._ended = f"the process that predicts has ended (status {status})"
            for model in self.models:
                model.error = model.error or self._ended
