"""Bars as programs read them, and times as people do."""

import json

import pytest

from genselfdiff.progress import duration, progress_bar


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (59.9, "59.9 s"),
        (60, "1 min 0 s"),
        (3599.9, "59 min 59 s"),
        (3960, "1 h 6 min"),
    ],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_a_program_gets_lines_of_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GSD_PROGRESS", "json")
    monkeypatch.setattr("genselfdiff.progress._EVERY", 0.0)
    with progress_bar(total=8, initial=2, progress=None, desc="s.tif", leave=False) as bar:
        bar.set_postfix_str("1.5 Mpx/s", refresh=False)
        for _ in range(3):
            bar.update(2)
    with progress_bar(total=5, progress=False) as bar:
        bar.update(5)
    printed = capsys.readouterr()
    lines = [json.loads(line)["progress"] for line in printed.err.splitlines()]
    assert [line["done"] for line in lines[:4]] == [2, 4, 6, 8]
    first, last = lines[0], lines[-1]
    assert (first["what"], first["total"], first["left"]) == ("s.tif", 8, None)
    assert (last["done"], last["left"], last["note"]) == (8, 0.0, "1.5 Mpx/s")
    assert set(last) == {"what", "done", "total", "seconds", "left", "note"}
    assert printed.out == ""
