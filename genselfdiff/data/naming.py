"""Naming files in messages."""

from collections.abc import Sequence
from pathlib import Path


def name_some(names: Sequence[str] | Sequence[Path], limit: int = 5) -> str:
    """The first ``limit`` names for a one-line message, and how many more there are."""
    listed = ", ".join(map(str, names[:limit]))
    return f"{listed} and {len(names) - limit} more" if len(names) > limit else listed
