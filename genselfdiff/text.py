"""Texts of other people's: names and messages, made fit for a terminal, a shell or a folder."""

import re
import shlex
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

Cell = TypeVar("Cell")

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories that steer a terminal or reorder a line: controls, formats, surrogates."""

_JOINERS = "\u200c\u200d"
"""Of category Cf as well, but letters of names in Persian and of emoji."""

_LONGEST_NAME = 200
"""Bytes of a file's name: file systems take 255, and temporary names are longer by some."""


def shown(text: str | Path, *, keep: str = "") -> str:
    r"""Return ``text`` as one line that shows what is in it and steers no terminal.

    Control and formatting characters come as ``\x1b`` or ``\u202e``, and bytes of a file's name
    that are no UTF-8, which Python has as lone surrogates, as ``\xe9``.

    Args:
        text: any text.
        keep: characters to leave as they are, ``"\n"`` for a text of several lines.
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(
        char
        if char in keep or char in _JOINERS or unicodedata.category(char) not in _HIDDEN
        else _escaped(char)
        for char in text
    )


def counted(number: int, noun: str) -> str:
    """How many there are of what: "1 tile", "2 tiles", "0 classes"."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun}{'es' if noun.endswith('s') else 's'}"


def shell_command(words: Iterable[str | Path]) -> str:
    """Join ``words`` to a line that a POSIX shell takes apart again, with nothing hidden in it.

    Words that hold control characters, or bytes that are no UTF-8, are quoted as ``$'..'``, which
    bash, zsh and ksh know.
    """
    return " ".join(map(_quoted, map(str, words)))


def file_name(text: str) -> str:
    """Make a foreign text the name of a file, which stays in the folder that it is joined to.

    Separators and what cannot be seen become ``_``; dots and hyphens at the beginning too, so that
    the file is not hidden and no command takes it for an option.
    """
    name = re.sub(r"[/\\:]", "_", shown(text))
    name = re.sub(r"^[.\-]+", "_", name.strip()) or "_"
    return name.encode(errors="replace")[:_LONGEST_NAME].decode(errors="ignore")


def spreadsheet_cell(value: Cell) -> Cell | str:
    """``value`` as a table has it: nothing hidden, and nothing that is taken for a formula.

    Text that begins as a formula does gets an apostrophe in front, which a spreadsheet leaves out
    when it shows the cell. Numbers, and what reads as one, stay.
    """
    if not isinstance(value, str):
        return value
    text = shown(value)
    is_formula = text.lstrip().startswith(("=", "+", "-", "@")) and not _is_number(text)
    return f"'{text}" if is_formula else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file's name, as Python has it
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _quoted(word: str) -> str:
    if shown(word) == word:
        return shlex.quote(word)
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{shown(escaped)}'"


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of equal length, the first column to the left, a rule below the first line."""
    rows = [[shown(cell) for cell in row] for row in rows]
    first, *others = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for place, row in enumerate(rows):
        cells = (f"  {cell:>{width}}" for cell, width in zip(row[1:], others, strict=True))
        line = row[0].ljust(first) + "".join(cells)
        yield line
        if not place:
            yield "-" * len(line)
