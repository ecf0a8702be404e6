import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from genselfdiff.text import counted, file_name, shell_command, shown, spreadsheet_cell

LATIN_1 = os.fsdecode(b"sl\xe9e.tif")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("slide (1) é µ 組織.tif", "slide (1) é µ 組織.tif"),
        ("a\x1b]0;owned\x07b", r"a\x1b]0;owned\x07b"),
        ("one\ntwo\r\tthree", r"one\x0atwo\x0d\x09three"),
        ("\x85\x9b31m", r"\u0085\u009b31m"),
        ("gpj.\u202eslide", r"gpj.\u202eslide"),
        ("a\u2028b\ufeff", r"a\u2028b\ufeff"),
        (LATIN_1, r"sl\xe9e.tif"),
        ("nuc\ud800", r"nuc\ud800"),
        ("\U000e0041", r"\U000e0041"),
        ("\U0001f468\u200d\U0001f52c", "\U0001f468\u200d\U0001f52c"),
    ],
)
def test_what_steers_a_terminal_is_shown_as_an_escape(text: str, expected: str) -> None:
    assert shown(text) == expected
    assert shown(Path(text)) == expected


def test_lines_are_kept_on_request() -> None:
    assert shown("one\ntwo\x1b", keep="\n") == "one\ntwo\\x1b"


def test_one_is_not_told_as_several() -> None:
    told = [counted(n, noun) for n, noun in ((0, "tile"), (1, "tile"), (2, "labelled image"))]
    assert told == ["0 tiles", "1 tile", "2 labelled images"]
    assert [counted(n, "class") for n in (1, 2)] == ["1 class", "2 classes"]


HARD_WORDS = [
    "plain",
    "",
    "two words",
    "it's",
    'a"b',
    "$HOME `id` \\ !",
    "-x",
    "tumor'; touch PWNED; echo '",
    "new\nline\ttab\x1b[31m",
    "both ' and \\ \x07",
    LATIN_1,
    "\u202e\x85",
]


@pytest.mark.parametrize("word", HARD_WORDS)
def test_a_shell_takes_a_command_apart_into_the_same_words(word: str) -> None:
    line = shell_command(["printf", "%s|", word])
    assert shown(line) == line
    if shown(word) == word:
        assert shlex.split(line) == ["printf", "%s|", word]
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    told = subprocess.run(
        [bash, "-c", line], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"}
    )
    assert told.stdout == os.fsencode(word) + b"|"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("field 1.png", "field 1.png"),
        ("../../etc/passwd", "__.._etc_passwd"),
        ("/abs", "_abs"),
        ("..", "_"),
        ("", "_"),
        (".hidden", "_hidden"),
        ("-rf", "_rf"),
        ("C:\\x", "C__x"),
        ("a\x00b\nc", "a_x00b_x0ac"),
    ],
)
def test_a_foreign_text_becomes_one_name_in_one_folder(text: str, expected: str) -> None:
    assert file_name(text) == expected


@pytest.mark.parametrize("text", ["x" * 10_000, "é" * 10_000, "\ud800" * 300])
def test_names_of_files_are_of_a_length_that_file_systems_take(tmp_path: Path, text: str) -> None:
    (tmp_path / file_name(text)).touch()
    assert len(os.listdir(tmp_path)) == 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("tumor", "tumor"),
        ("=1+1", "'=1+1"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-x", "'-x"),
        ("@SUM(A1)", "'@SUM(A1)"),
        (" =1", "' =1"),
        ("\t=1", "\\x09=1"),
        ("-0.25", "-0.25"),
        ("+1e-3", "+1e-3"),
        ("a=b", "a=b"),
        (-3, -3),
        (0.5, 0.5),
        (None, None),
        (LATIN_1, r"sl\xe9e.tif"),
    ],
)
def test_no_cell_of_a_table_is_a_formula(value: object, expected: object) -> None:
    cell = spreadsheet_cell(value)
    assert cell == expected
    assert spreadsheet_cell(cell) == cell
