"""Decoded pieces of slides (tiles, strips, whole pictures), kept within a number of bytes."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Uint8 = NDArray[np.uint8]


@dataclass
class _Slot:
    lock: threading.Lock = field(default_factory=threading.Lock)
    pixels: Uint8 | None = None


class PieceCache:
    """Least-recently-used cache that threads share; a piece that two want is decoded once.

    Args:
        capacity: bytes of pixels to keep. The latest piece is kept even if it alone is larger:
            a picture stored in one piece would otherwise be decoded again for every window.
        most: bound on what ``reserve`` can make of it.
    """

    def __init__(self, capacity: int, most: int) -> None:
        self._usual = capacity
        self._most = most
        self._reserved: dict[Hashable, int] = {}
        self.reset()

    @property
    def capacity(self) -> int:
        """Bytes of pixels that are kept now."""
        return min(max(self._usual, *self._reserved.values(), 0), self._most)

    def reserve(self, owner: Hashable, needed: int) -> None:
        """Keep as much as the ``owner`` needs at once, if that is more than usual; 0 ends it."""
        with self._lock:
            if needed:
                self._reserved[owner] = needed
            else:
                self._reserved.pop(owner, None)

    def reset(self) -> None:
        """Forget everything, the threads that use the cache as well."""
        self._bytes = 0
        self._lock = threading.Lock()
        self._slots: OrderedDict[Hashable, _Slot] = OrderedDict()

    def get(self, key: Hashable, decode: Callable[[], Uint8]) -> Uint8:
        """Return the piece ``key``, decoding it if it is not held; do not write to the result."""
        with self._lock:
            slot = self._slots.setdefault(key, _Slot())
            self._slots.move_to_end(key)
        with slot.lock:
            if slot.pixels is None:
                try:
                    slot.pixels = decode()
                finally:
                    self._settle(key, slot)
            return slot.pixels

    def holds(self, key: Hashable) -> bool:
        """Whether the piece ``key`` is held, or being decoded."""
        with self._lock:
            return key in self._slots

    def drop(self, owned: Callable[[Hashable], bool]) -> None:
        """Forget every piece whose key is ``owned``."""
        with self._lock:
            for key in [key for key in self._slots if owned(key)]:
                self._forget(key)

    def _settle(self, key: Hashable, slot: _Slot) -> None:
        with self._lock:
            if self._slots.get(key) is not slot:
                return  # dropped meanwhile
            if slot.pixels is None:
                del self._slots[key]
                return
            self._bytes += slot.pixels.nbytes
            self._slots.move_to_end(key)
            capacity = self.capacity
            while self._bytes > capacity and (oldest := next(iter(self._slots))) != key:
                if self._slots[oldest].pixels is None:
                    self._slots.move_to_end(oldest)  # being decoded by another thread
                else:
                    self._forget(oldest)

    def _forget(self, key: Hashable) -> None:
        slot = self._slots.pop(key)
        if slot.pixels is not None:
            self._bytes -= slot.pixels.nbytes
