"""Progress bars, all made alike, and times as people read them."""

import math
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from genselfdiff.text import shown


def progress_bar(
    iterable: Iterable[Any] | None = None,
    *,
    progress: bool | None,
    desc: str | None = None,
    **details: Any,
) -> "tqdm[Any]":
    """A bar of tqdm on stderr.

    Args:
        iterable: what to go through; None: ``update`` is called.
        progress: True: show it; False: do not; None: only on a terminal.
        desc: what is done, the name of a file for example.
        **details: as tqdm takes them.
    """
    return tqdm(
        iterable,
        desc=None if desc is None else shown(desc),
        disable=None if progress is None else not progress,
        **details,
    )


def duration(seconds: float) -> str:
    """A time, such as "12.3 s", "3 min 20 s" or "1 h 6 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(math.floor(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
