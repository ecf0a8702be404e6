import math
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from genselfdiff.errors import InputError
from genselfdiff.input_files import (
    is_regular_file,
    open_input,
    read_bytes,
    read_csv_rows,
    read_json,
    read_text,
    read_toml,
)


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    link = tmp_path / "link"
    link.symlink_to(pipe)
    listening = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(listening))
    for path, said in (
        (pipe, "is a pipe"),
        (link, "is a pipe"),
        (tmp_path, "is a folder"),
        (Path("/dev/zero"), "is a device"),
        (listening, "cannot be read"),
        (tmp_path / "absent", "No such file"),
        (tmp_path / ("x" * 300), "File name too long"),
        (tmp_path / "nul\0", "null"),
    ):
        assert not is_regular_file(path)
        with pytest.raises(InputError, match=said):
            open_input(path)


def test_links_to_files_are_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    assert is_regular_file(tmp_path / "link")
    assert read_bytes(tmp_path / "link") == b"abc"


def test_a_file_that_claims_too_much_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.json"
    with path.open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(InputError, match=r"sparse\.json: has 1,099,511,627,776 bytes"):
        read_json(path)


def test_a_mark_before_the_text_is_left_out(tmp_path: Path) -> None:
    for name, text, read in (
        ("a.txt", "µm", read_text),
        ("a.json", '["µm"]', read_json),
        ("a.toml", "x = 1", read_toml),
    ):
        plain, marked = tmp_path / name, tmp_path / f"bom_{name}"
        plain.write_text(text, "utf-8")
        marked.write_text(text, "utf-8-sig")
        assert read(marked) == read(plain)


def test_text_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes("name,é".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.csv: is no text in UTF-8 \(byte 5\)"):
        read_csv_rows(path)


@pytest.mark.parametrize(
    ("read", "name", "text", "said"),
    [
        (read_json, "x.json", "[" * 100_000, "nested too deeply"),
        (read_json, "x.json", '{"a":' * 100_000, "nested too deeply"),
        (read_json, "x.json", "{", "is not JSON"),
        (read_json, "x.json", "", "is not JSON"),
        (read_toml, "x.toml", "a = " + "[" * 100_000, "nested too deeply"),
        (read_toml, "x.toml", "a." * 100_000 + "b = 1", "nested too deeply"),
        (read_toml, "x.toml", "x = 1\n[" + "a . " * 200 + "b]", "nested too deeply"),
        (read_toml, "x.toml", "x = {y = 2, " + '"a b".' * 200 + "b = 1}", "nested too deeply"),
        (read_toml, "x.toml", "a = ", "is not TOML"),
        (read_toml, "x.toml", "a = " + "1" * 5000, "is not TOML"),
    ],
)
def test_what_cannot_be_parsed_is_named(
    tmp_path: Path, read: Any, name: str, text: str, said: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=f"{name}: .*{said}"):
        read(tmp_path / name)


def test_numbers_of_any_length_are_read(tmp_path: Path) -> None:
    path = tmp_path / "numbers.json"
    path.write_text(f"[{'9' * 400}, -{'9' * 5000}, 12345678901234567, 9007199254740993, 1e999]")
    huge, low, *whole, infinite = read_json(path)
    assert (huge, low, infinite) == (math.inf, -math.inf, math.inf)
    assert whole == [12345678901234567, 9007199254740993]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_tables_are_read_as_spreadsheets_save_them(
    tmp_path: Path, separator: str, encoding: str, newline: str
) -> None:
    path = tmp_path / "table.csv"
    lines = [["name", "group "], ["a.png", '"one, two; three"'], ["b.png"], []]
    path.write_bytes(newline.join(map(separator.join, lines)).encode(encoding))
    names, rows = read_csv_rows(path)
    assert names == ["name", "group"]
    assert rows == [
        {"name": "a.png", "group": "one, two; three"},
        {"name": "b.png", "group": ""},
    ]


def test_a_row_that_is_too_long_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("name,group\na,b,c\n")
    with pytest.raises(InputError, match=r"table\.csv: a row has more cells than its .*2 columns"):
        read_csv_rows(path)
