"""Progress bars, all made alike, for people or for programs, and times as people read them."""

import json
import math
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from tqdm import tqdm

from genselfdiff.text import shown

AS_JSON = "GSD_PROGRESS"
"""Environment variable: with the value "json", bars are lines of JSON for a program that reads."""

_EVERY = 0.5
"""Seconds between two lines."""


def progress_bar(
    iterable: Iterable[Any] | None = None,
    *,
    progress: bool | None,
    desc: str | None = None,
    **details: Any,
) -> "tqdm[Any]":
    """A bar of tqdm on stderr; or lines of JSON, see `AS_JSON`.

    Args:
        iterable: what to go through; None: ``update`` is called.
        progress: True: show it; False: do not; None: only on a terminal, or as JSON.
        desc: what is done, the name of a file for example.
        **details: as tqdm takes them.
    """
    if os.environ.get(AS_JSON) == "json":
        details |= {"file": _Nowhere(), "mininterval": _EVERY, "delay": 0.0}
        return _Lines(iterable, desc=desc, disable=progress is False, **details)
    return tqdm(
        iterable,
        desc=None if desc is None else shown(desc),
        disable=None if progress is None else not progress,
        **details,
    )


class _Nowhere:
    """Where tqdm's own characters go."""

    def write(self, text: str) -> None:
        pass

    def flush(self) -> None:
        pass


class _Lines(tqdm):  # type: ignore[misc]
    """A bar for a program: a line of JSON each time that tqdm would draw."""

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Write {"progress": {"what", "done", "total", "seconds", "left", "note"}}."""
        told = self.format_dict
        done, total, rate = told["n"], told["total"], told["rate"]
        if rate is None and told["elapsed"] > 0:
            rate = (done - told["initial"]) / told["elapsed"]
        left = (total - done) / rate if total is not None and rate else None
        line = {
            "what": told["prefix"].removesuffix(": "),
            "done": done,
            "total": total,
            "seconds": round(told["elapsed"], 1),
            "left": None if left is None else round(left, 1),
            "note": told["postfix"] or "",
        }
        with suppress(OSError, ValueError):
            sys.stderr.write(json.dumps({"progress": line}) + "\n")
            sys.stderr.flush()
        return True


def duration(seconds: float) -> str:
    """A time, such as "12.3 s", "3 min 20 s" or "1 h 6 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(math.floor(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
