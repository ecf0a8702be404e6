"""What pages show just now, and in which order it is predicted."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from genselfdiff.live.blocks import Block, Picture

FORGOTTEN = 3.0
"""Seconds after which a page that does not ask any more is no longer there: it asks every half."""

_AWAY = 1.0
"""Seconds after which a page that shows the same again has shown something else meanwhile."""

_MOST_VIEWS = 8


@dataclass(frozen=True)
class View:
    """What a page shows.

    Attributes:
        pictures: the models and the slide, the first to be predicted first.
        blocks: of the slide that are on the screen, in the order in which they are wanted.
    """

    pictures: tuple[Picture, ...]
    blocks: tuple[Block, ...]


class Views:
    """The views of the last seconds; threads may use it at once.

    Args:
        clock: tells the seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[View, float] = {}
        self._lock = Lock()

    def look(self, view: View) -> None:
        """Somebody looks at ``view``, which is the newest now, unless they did just before."""
        with self._lock:
            now = self._clock()
            if now - self._seen.get(view, now) > _AWAY:
                del self._seen[view]
            self._seen[view] = now
            while len(self._seen) > _MOST_VIEWS:
                del self._seen[next(iter(self._seen))]

    def wanted(
        self, missing: Callable[[Picture, list[Block]], list[Block]]
    ) -> list[tuple[Picture, list[Block]]]:
        """What is to be predicted: of the newest view first.

        A slide of which nothing is wanted yet, because too much of it is seen, is among it.

        Args:
            missing: gives of some blocks of a picture those that are not yet predicted.
        """
        with self._lock:
            now = self._clock()
            self._seen = {v: seen for v, seen in self._seen.items() if now - seen < FORGOTTEN}
            views = list(reversed(self._seen))
        found = [
            (picture, missing(picture, list(view.blocks)), view)
            for view in views
            for picture in view.pictures
        ]
        return [(picture, blocks) for picture, blocks, view in found if blocks or not view.blocks]
