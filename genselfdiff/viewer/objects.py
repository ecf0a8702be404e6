"""The objects of a layer as the page asks for them, once they are found in the background."""

import threading
from pathlib import Path
from typing import Any

from genselfdiff.errors import GsdError, one_line
from genselfdiff.text import shown
from genselfdiff.viewer.layers import Layer
from genselfdiff.viewer.object_index import ObjectIndex, rings_shown
from genselfdiff.viewer.tiles import NoTile, TilePlace, levels

THREADS = "gsd-view"
"""How the names of threads begin whose work nobody waits for once the server ends."""

ENLARGED = 2
"""Levels of outlines that are finer than the mask: lines stay thin where it is blown up."""

OUTLINE_TILE = 512

_LEAST_SEEN = 12.0
"""Pixels of a tile; smaller objects are specks, which the mask shows as well."""

_MOST_CORNERS = 20_000
"""Of one object that are sent to be drawn."""

_one_at_a_time = threading.Lock()


class LayerObjects:
    """Finds the objects of a mask in a thread, from the beginning on.

    Args:
        layer: the mask.
    """

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self._share = 0.0
        self._error = ""
        self._index: ObjectIndex | None = None
        threading.Thread(
            target=self._find, args=(layer.path,), name=f"{THREADS}-objects", daemon=True
        ).start()

    def state(self) -> dict[str, Any]:
        """Tell how far it is: "share" of the mask, "error", and "count" once all are found."""
        count = None if self._index is None else len(self._index)
        return {"share": self._share, "error": self._error, "count": count}

    def tile(self, place: TilePlace) -> bytes:
        """Give the outlines in a tile, see ``Lines.packed``.

        Its levels begin `ENLARGED` before those of the mask.

        Raises:
            NoTile: there is none, or the objects are not found yet.
        """
        layer, scale = self._layer, 2.0 ** (place.level - ENLARGED)
        side = OUTLINE_TILE * scale
        x, y = place.column * side, place.row * side
        exists = place.level < levels(layer.width, layer.height) + ENLARGED
        if self._index is None or not exists or x >= layer.width or y >= layer.height:
            raise NoTile
        return self._index.lines(x, y, side, scale, _LEAST_SEEN * scale).packed()

    def at(self, x: int, y: int) -> dict[str, Any] | None:
        """Tell of the object at a pixel of the mask; None: there is none.

        Raises:
            NoTile: the objects are not found yet.
        """
        if self._index is None:
            raise NoTile
        found = self._index.at(x, y)
        if found is None:
            return None
        mpp = self._index.mpp
        names = self._layer.names
        label = found.label
        return {
            "id": found.number,
            "class": shown(names[label] if label < len(names) else f"class {label}"),
            "label": label,
            "area": found.area * (mpp or 1) ** 2,
            "perimeter": found.perimeter * (mpp or 1),
            "unit": "px" if mpp is None else "\u00b5m",
            "rings": list(rings_shown(found.rings, _MOST_CORNERS)),
        }

    def _find(self, mask: Path) -> None:
        try:
            with _one_at_a_time:
                self._index = ObjectIndex(mask, self._tell)
        except (GsdError, OSError, MemoryError) as error:
            self._error = one_line(error)

    def _tell(self, share: float) -> None:
        self._share = share
