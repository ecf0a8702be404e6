"""The slides of the page, opened when they are looked at."""

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from genselfdiff.errors import InputError
from genselfdiff.masks import MaskReader
from genselfdiff.text import shown
from genselfdiff.viewer.collection import Entry, take_areas
from genselfdiff.viewer.layers import Layer
from genselfdiff.viewer.objects import ENLARGED, OUTLINE_TILE, LayerObjects
from genselfdiff.viewer.tile_cache import TileCache
from genselfdiff.viewer.tiles import LAYER_TILE, SlideTiles, TilePlace, jpeg, layer_tile

_CACHE_BYTES = 128 * 2**20
_OPEN_AT_ONCE = 8
"""Slides: of others the files are closed as soon as nobody reads from them."""

_THUMBNAIL = 160
"""Longer side in pixels."""


class OpenEntry:
    """A slide with its layers, open.

    Raises:
        InputError: one cannot be opened, or a layer has another size than the slide.
    """

    def __init__(self, entry: Entry, mpp: float | None, icc: bool) -> None:
        self.tiles = SlideTiles(entry.slide, mpp, icc)
        slide = self.tiles.slide
        layers = [self._layer(path) for path in entry.layers]
        self.layers = sorted(layers, key=lambda layer: layer.kind)  # masks first
        # What is known of a layer is known by its place: those that come later come last.
        self.layers += [self._layer(path) for path in entry.added]
        _share_colours(self.layers)
        self._objects: dict[int, LayerObjects] = {}
        self._finding = Lock()
        first = next((layer for layer in self.layers if layer.mpp is not None), None)
        self.mpp = slide.mpp if slide.mpp is not None or first is None else first.mpp

    def add(self, mask: Path) -> None:
        """Lay another mask over the slide, behind the others.

        Raises:
            InputError: as the class.
        """
        self.layers.append(self._layer(mask))

    def _layer(self, path: Path) -> Layer:
        layer, slide = Layer(path), self.tiles.slide
        if (layer.width, layer.height) != (slide.width, slide.height):
            raise InputError(
                f"{path}: has {layer.width} x {layer.height} pixels, and its slide"
                f" {slide.path} {slide.width} x {slide.height}: is it the mask of another?"
            )
        return layer

    def objects(self, layer: int) -> LayerObjects:
        """Find the objects of a mask, or give them if they are found or looked for.

        Raises:
            LookupError: there is no such layer, or it is no mask.
        """
        if self.layers[layer].kind != "mask":
            raise LookupError("probabilities have no objects")
        with self._finding:
            if layer not in self._objects:
                self._objects[layer] = LayerObjects(self.layers[layer])
            return self._objects[layer]


class Library:
    """What the page can ask for; threads may use it at once.

    Args:
        entries: the slides, each known by its place among them.
        mpp: micrometres per pixel of the slides, believed more than their files.
        icc: show colours as the slides' ICC profiles mean them; an attribute, too.
    """

    def __init__(
        self, entries: Sequence[Entry], mpp: float | None = None, icc: bool = False
    ) -> None:
        self.entries = list(entries)
        self._mpp = mpp
        self.icc = icc
        self._open: OrderedDict[int, OpenEntry] = OrderedDict()
        self._lock = Lock()
        self._cache = TileCache(_CACHE_BYTES)

    def open(self, number: int) -> OpenEntry:
        """Open a slide with its layers, or give it if it is open.

        Raises:
            InputError: as ``OpenEntry``.
        """
        with self._lock:
            if number not in self._open:
                self._open[number] = OpenEntry(self.entries[number], self._mpp, self.icc)
                if len(self._open) > _OPEN_AT_ONCE:
                    self._open.popitem(last=False)
            self._open.move_to_end(number)
            return self._open[number]

    def add(self, number: int, mask: Path) -> None:
        """Lay a mask over a slide that was made since, unless it is there already.

        Raises:
            InputError: it cannot be opened, or has another size.
        """
        entry = self.entries[number]
        opened = self.open(number)
        with self._lock:
            if os.path.realpath(mask) in map(os.path.realpath, (*entry.layers, *entry.added)):
                return
            opened.add(mask)
            entry.added.append(mask)
        with MaskReader(mask) as reader:
            take_areas(reader, entry)

    def overview(self) -> list[dict[str, Any]]:
        """Tell of all slides what is known without opening them."""
        return [
            {
                "name": shown(entry.slide.name),
                "folder": shown(str(entry.slide.parent)),
                "state": entry.state,
                "error": shown(entry.error),
                "areas": {shown(name): area for name, area in entry.areas.items()},
                "unit": entry.unit,
                "masks": len(entry.layers) + len(entry.added),
            }
            for entry in self.entries
        ]

    def details(self, number: int) -> dict[str, Any]:
        """Tell of a slide what the page needs to show it.

        Raises:
            InputError: as ``OpenEntry``.
        """
        opened = self.open(number)
        slide = opened.tiles.slide
        names = _told_apart([layer.path for layer in opened.layers])
        return {
            "name": shown(slide.path.name),
            "width": slide.width,
            "height": slide.height,
            "mpp": opened.mpp,
            "tile": opened.tiles.side,
            "layer_tile": LAYER_TILE,
            "outline_tile": OUTLINE_TILE,
            "enlarged": 1 << ENLARGED,
            "layers": [
                {
                    "name": name,
                    "kind": layer.kind,
                    "classes": [
                        {"name": name, "colour": colour}
                        for name, colour in zip(layer.names, layer.colours, strict=True)
                    ],
                }
                for name, layer in zip(names, opened.layers, strict=True)
            ],
        }

    def slide_tile(self, number: int, place: TilePlace) -> bytes:
        """Give a tile of a slide as JPEG.

        Raises:
            InputError, NoTile: as ``SlideTiles.tile``.
        """
        tiles = self.open(number).tiles
        return self._cache.get((number, place), lambda: tiles.tile(place))

    def layer_tile(self, number: int, layer: int, plane: int, place: TilePlace) -> bytes:
        """Give a tile of a layer as PNG.

        Raises:
            InputError, NoTile: as ``tiles.layer_tile``.
        """
        opened = self.open(number).layers[layer]
        key = number, layer, plane, place
        return self._cache.get(key, lambda: layer_tile(opened, place, plane))

    def outline_tile(self, number: int, layer: int, place: TilePlace) -> bytes:
        """Give the outlines of objects in a tile, see ``LayerObjects.tile``.

        Raises:
            NoTile: there is none, or the objects are not found yet.
        """
        objects = self.open(number).objects(layer)
        return self._cache.get((number, layer, "outlines", place), lambda: objects.tile(place))

    def thumbnail(self, number: int) -> bytes:
        """Give the whole slide as a small JPEG.

        Raises:
            InputError: the slide cannot be read.
        """

        def make() -> bytes:
            # Not slide.thumbnail, which holds rows of decoded tiles in memory.
            view = self.open(number).tiles.slide.thumbnail_view(_THUMBNAIL)
            return jpeg(view.read(0, 0, view.width, view.height))

        return self._cache.get((number, "thumbnail"), make)


def _share_colours(layers: Sequence[Layer]) -> None:
    """Give probabilities, which have no colours of their own, those of the masks' classes."""
    masks = [layer for layer in layers if layer.kind == "mask"]
    known = {n: c for mask in masks for n, c in zip(mask.names, mask.colours, strict=True)}
    for layer in layers:
        if layer.kind == "probabilities":
            own = zip(layer.names, layer.colours, strict=True)
            layer.colours = [known.get(name, colour) for name, colour in own]


def _told_apart(paths: Sequence[Path]) -> list[str]:
    """Names of files, with as many folders before them as tell them from each other."""
    if len(set(paths)) < len(paths):
        return [shown(path) for path in paths]
    parts = 1
    while len({path.parts[-parts:] for path in paths}) < len(paths):
        parts += 1
    return [shown(Path(*path.parts[-parts:])) for path in paths]
