"""What becomes of the pieces of a slide that cannot be decoded."""

import logging
import threading

import numpy as np
from numpy.typing import NDArray

from genselfdiff.choices import ON_ERROR
from genselfdiff.errors import InputError, one_line
from genselfdiff.storage.places import Place

Uint8 = NDArray[np.uint8]

logger = logging.getLogger("genselfdiff")

_TOLD = 10
"""Damaged pieces of a slide that are warned of one by one."""

_GLASS = 255


class Unreadable(Exception):
    """A stored piece cannot be decoded, while others may be whole.

    Args:
        where: which piece, as a user could find it.
        cause: what its decoder says.
    """

    def __init__(self, where: str, cause: Exception) -> None:
        super().__init__(f"{where} cannot be decoded ({one_line(cause)})")


class Damage:
    """Decides about the damaged pieces of one slide, and counts those that became glass.

    Args:
        path: where the slide is, for messages.
        on_error: one of ``ON_ERROR``.

    Raises:
        InputError: no such ``on_error``.
    """

    def __init__(self, path: Place, on_error: str = "fail") -> None:
        if on_error not in ON_ERROR:
            raise InputError(f"on_error {on_error!r} must be one of {', '.join(ON_ERROR)}")
        self.path = path
        self.is_tolerated = on_error == "blank"
        self._lock = threading.Lock()
        self._blank: dict[str, None] = {}

    @property
    def count(self) -> int:
        """Pieces that were taken for glass until now."""
        return len(self._blank)

    @property
    def pieces(self) -> list[str]:
        """What `note` was told of each of them."""
        with self._lock:
            return list(self._blank)

    def replace(self, shape: tuple[int, int], error: Unreadable) -> Uint8:
        """Give glass, (h, w, 3), for a damaged piece, and note it.

        Raises:
            InputError: damage is not tolerated.
        """
        if not self.is_tolerated:
            raise InputError(
                f"{self.path}: {error}; copy or export the file again; gsd segment and gsd train"
                " pretrain take what is damaged for glass with --on-error blank"
            ) from error
        self.note(str(error))
        return np.broadcast_to(np.uint8(_GLASS), (*shape, 3))

    def note(self, damage: str) -> None:
        """Count a piece that became glass, here or in another process; warn when it is new.

        ``damage`` is what its `Unreadable` says, which no other piece of the slide has.
        """
        with self._lock:
            is_new = damage not in self._blank
            self._blank[damage] = None
            count = len(self._blank)
        if is_new and count <= _TOLD:
            logger.warning("%s: %s: taken for glass", self.path, damage)
        if is_new and count == _TOLD:
            logger.warning("%s: further damaged tiles are counted, not listed", self.path)
