"""Names of files and of classes."""

import csv
import io
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from genselfdiff.errors import InputError, one_line


def name_some(names: Sequence[str] | Sequence[Path], limit: int = 5) -> str:
    """The first ``limit`` names for a one-line message, and how many more there are."""
    listed = ", ".join(map(str, names[:limit]))
    return f"{listed} and {len(names) - limit} more" if len(names) > limit else listed


def stem_of(path: Path) -> str:
    """The name that an image shares with its mask: without suffix, nor ``.ome`` before that.

    One name in two forms of Unicode, as macOS and other systems store it, is one.
    """
    stem = path.stem
    if stem.lower().endswith(".ome"):
        stem = stem[: -len(".ome")]
    return one_form(stem)


def one_form(name: str) -> str:
    """A name in the form of Unicode that `stem_of` gives."""
    return unicodedata.normalize("NFC", name)


def list_names(names: Iterable[str]) -> str:
    """``names``, comma-separated, as `names_in` takes them apart: with quotes where need be."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(names)
    return line.getvalue().removesuffix("\n")


def names_in(text: str) -> tuple[str, ...]:
    """The names in a comma-separated list, of which those with commas are in double quotes.

    Raises:
        InputError: there is a line break outside of quotes.
    """
    try:
        names = next(csv.reader([text], skipinitialspace=True), []) or [""]
    except csv.Error as error:
        raise InputError(f"{text}: is no list of names: {one_line(error)}") from error
    return tuple(name.strip() for name in names)
