"""Which classes are taken from what an importer has found."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from genselfdiff.data.labelled_folder import require_names
from genselfdiff.data.naming import name_some
from genselfdiff.errors import InputError

logger = logging.getLogger("genselfdiff")

BACKGROUND = "background"
"""Name of index 0; what a file calls so is no object."""


def choose_classes(
    found: Mapping[str, int], wanted: Sequence[str] | None, source: Path
) -> list[str]:
    """Name the classes by their index, from that of the background on.

    Args:
        found: how many objects of each class there are.
        wanted: names to take, in their order; None: all there are, by the alphabet.
        source: where they are from, for messages.

    Raises:
        InputError: these can be no names, or nothing has a class that is wanted.
    """
    kinds = sorted(found.keys() - {BACKGROUND})
    names = [BACKGROUND, *(kinds if wanted is None else wanted)]
    require_names(names, source)
    absent = [name for name in names[1:] if not found.get(name)]
    if absent:
        there = name_some([f"{kind} ({found[kind]})" for kind in kinds], limit=20)
        told = f"{source}: nothing has the class {name_some(absent)}: there are {there or 'none'}"
        if len(absent) == len(names) - 1:
            raise InputError(f"{told}: name them as they are written there")
        logger.warning("%s", told)
    return names
