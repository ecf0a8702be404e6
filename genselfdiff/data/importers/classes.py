"""Which classes are taken from what an importer has found."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from genselfdiff.data.labelled_folder import IGNORED, require_names
from genselfdiff.data.naming import name_some
from genselfdiff.errors import InputError

logger = logging.getLogger("genselfdiff")

BACKGROUND = "background"
"""Name of index 0; what a file calls so is no object."""

IGNORE = "ignore"
"""Name in a table of what nobody has labelled."""

Table = Mapping[int, int]
"""From a value, or a colour as 0xRRGGBB, to an index."""


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


def choose_all(found: Mapping[str, int], wanted: Sequence[str] | None, source: Path) -> list[str]:
    """As `choose_classes`, where nothing else may be in what was found.

    Raises:
        InputError: as by `choose_classes`, or ``wanted`` lacks a class that there is.
    """
    names = choose_classes(found, wanted, source)
    missing = sorted(found.keys() - set(names))
    if missing:
        raise InputError(f"{source}: has the classes {', '.join(missing)} too: name all to take")
    return names


def parse_meanings(meanings: Sequence[str]) -> tuple[Table, list[str]]:
    """What each value means, and the names of the classes, from ``VALUE=CLASS`` each.

    Raises:
        InputError: one is no such pair, or they contradict each other.
    """
    names, values = [BACKGROUND], []
    for meaning in meanings:
        value, equals, name = (part.strip() for part in meaning.partition("="))
        if not equals or not name or not re.fullmatch(r"[0-9]{1,20}|#[0-9a-fA-F]{6}", value):
            raise InputError(f"{meaning}: give VALUE=CLASS, such as 255=gland or #ff0000=tumor")
        values.append((value, name))
        if name not in (*names, IGNORE):
            names.append(name)
    if len({value.startswith("#") for value, _ in values}) > 1:
        raise InputError("numbers and colours in one table: masks hold either")
    require_names(names, " ".join(meanings))
    numbers = {name: index for index, name in enumerate(names)} | {IGNORE: IGNORED}
    table: dict[int, int] = {}
    for value, name in values:
        number = int(value.lstrip("#"), 16 if "#" in value else 10)
        if table.setdefault(number, numbers[name]) != numbers[name]:
            raise InputError(f"{value}={name}: {value} has another meaning already: leave one")
    return table, names
