"""Encoded tiles that are kept, up to a number of bytes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock


class TileCache:
    """The tiles that were asked for last; threads may use it at once.

    Args:
        capacity: bytes of tiles that are kept at most.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._held = 0
        self._tiles: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """Return the tile of that key, made now unless it is kept.

        Two threads that ask for it at once may both make it.
        """
        with self._lock:
            if key in self._tiles:
                self._tiles.move_to_end(key)
                return self._tiles[key]
        tile = make()
        with self._lock:
            if key not in self._tiles and len(tile) <= self._capacity:
                self._tiles[key] = tile
                self._held += len(tile)
                while self._held > self._capacity:
                    self._held -= len(self._tiles.popitem(last=False)[1])
        return tile
