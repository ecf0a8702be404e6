"""Reading small files that others wrote: text, JSON, TOML, XML and tables.

Only regular files are read, up to a size, and whatever is wrong with them ends in an `InputError`
that names the file. Slides and images are read by ``slides``.
"""

import csv
import json
import os
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO
from xml.parsers import expat

from genselfdiff.errors import InputError, one_line
from genselfdiff.text import counted

LARGEST_TEXT = 2**31
"""Bytes of a text that is read at once: annotations of a million objects have less."""

_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)

_DOTS = 100
"""Of a key in TOML: tomllib's memory grows with the square of their number."""

_WHOLE_DIGITS = 18
"""More digits than these make no whole number of 64 bits for certain; it is read as a float."""


def open_input(path: str | Path) -> BinaryIO:
    """Open a regular file for reading; a pipe or device is refused, and never waited for.

    Raises:
        InputError: the file is not there, cannot be opened or is no regular file.
    """
    try:
        # Without O_NONBLOCK, opening a pipe waits until somebody writes into it.
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {one_line(error)}") from error
    mode = os.fstat(opened).st_mode
    if not stat.S_ISREG(mode):
        os.close(opened)
        kind = next((name for test, name in _KINDS if test(mode)), "no file")
        raise InputError(f"{path}: is {kind}: name a file")
    return open(opened, "rb")


def is_regular_file(path: str | Path) -> bool:
    """Whether a regular file is there, or a link to one; False also for names that are too long."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def read_bytes(path: str | Path, at_most: int = LARGEST_TEXT) -> bytes:
    """Read a regular file whole.

    Raises:
        InputError: it cannot be read, or has more than ``at_most`` bytes.
    """
    with open_input(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > at_most:
            raise InputError(f"{path}: has {size:,} bytes, more than the {at_most:,} that are read")
        try:
            return stream.read(at_most)
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {one_line(error)}") from error


def read_text(path: str | Path, errors: str = "strict") -> str:
    """Read a text in UTF-8, without the mark (BOM) that some programs put before it.

    With ``errors`` "surrogateescape", bytes that are no UTF-8 come as Python has them in names of
    files.

    Raises:
        InputError: it cannot be read, or is not in UTF-8.
    """
    try:
        return read_bytes(path).decode("utf-8", errors).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: is no text in UTF-8 (byte {error.start}): save it as UTF-8"
        ) from error


def read_json(path: str | Path) -> Any:
    """Read a JSON file, see `parse_json`.

    Raises:
        InputError: it cannot be read, or is not JSON.
    """
    return parse_json(read_text(path), path)


def parse_json(text: str, path: str | Path) -> Any:
    """Parse JSON text; whole numbers beyond 64 bits become floats, if need be infinite ones.

    Args:
        text: JSON.
        path: where it is from, for the error.

    Raises:
        InputError: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text, parse_int=_whole_number)
    except RecursionError as error:
        raise InputError(f"{path}: is nested too deeply to be read") from error
    except ValueError as error:
        raise InputError(f"{path}: is not JSON: {one_line(error)}") from error


def read_toml(path: str | Path, errors: str = "strict") -> dict[str, Any]:
    """Read a TOML file; ``errors`` as for `read_text`.

    Raises:
        InputError: it cannot be read, is not TOML, or is nested too deeply.
    """
    text = read_text(path, errors)
    if any(key.count(".") > _DOTS for line in text.splitlines() for key in _keys(line)):
        raise InputError(f"{path}: is nested too deeply to be read")
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise InputError(f"{path}: is nested too deeply to be read") from error
    except ValueError as error:
        raise InputError(f"{path}: is not TOML: {one_line(error)}") from error


def read_xml(path: str | Path, begin: Callable[[str, dict[str, str]], None], program: str) -> None:
    """Give the name and the attributes of each element of an XML file to ``begin``, in their order.

    Args:
        path: the file.
        begin: may raise InputError.
        program: whose file it should be, for errors.

    Raises:
        InputError: the file cannot be read, is no XML, or declares a document type or entities:
            these could name other files, or expand without bound.
    """

    def refuse(*_: object) -> None:
        raise InputError(
            f"{path}: declares a document type, as no file of {program} does: take it out"
        )

    parser = expat.ParserCreate()
    parser.StartElementHandler = begin
    parser.StartDoctypeDeclHandler = refuse
    with open_input(path) as file:
        try:
            parser.ParseFile(file)
        except InputError:
            raise
        except (OSError, expat.ExpatError, LookupError, ValueError) as error:
            raise InputError(f"{path}: is no XML file of {program}: {one_line(error)}") from error


def read_csv_rows(path: str | Path) -> tuple[list[str], list[dict[str, str]]]:
    """Read a table with a line of its columns' names, separated by comma, semicolon or tab.

    Returns:
        The names of the columns, and for each row its cells by them, "" where a row is shorter.

    Raises:
        InputError: it cannot be read, or a row has more cells than there are columns.
    """
    text = read_text(path)
    head = text.partition("\n")[0]
    separator = max(",;\t", key=head.count)
    try:
        table = csv.DictReader(text.splitlines(keepends=True), delimiter=separator, restval="")
        names = [name.strip() for name in table.fieldnames or ()]
        table.fieldnames = names
        rows = list(table)
    except csv.Error as error:
        raise InputError(f"{path}: is no table: {one_line(error)}") from error
    if any(None in row for row in rows):
        columns = counted(len(names), "column")
        raise InputError(f"{path}: a row has more cells than its line of names, {columns}")
    return names, rows


def _keys(line: str) -> list[str]:
    """What of a line of TOML may be keys: what stands before an equals sign, or a table's head."""
    parts = line.split("=")
    if len(parts) == 1:
        return parts if line.lstrip().startswith("[") else []
    return parts[:-1] if "{" in line else parts[:1]


def _whole_number(digits: str) -> int | float:
    return int(digits) if len(digits) <= _WHOLE_DIGITS else float(digits)
