import logging
import os
import subprocess
import sysconfig
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from genselfdiff.errors import InputError
from gsd.main import Gsd, main

GSD = Path(sysconfig.get_path("scripts")) / "gsd"
HOSTILE = "x\x1b]0;owned\x07\x1b[31m\nError: all is lost\u202e"


@click.group(cls=Gsd)
def group() -> None:
    pass


def test_names_reach_the_terminal_as_text(tmp_path: Path) -> None:
    for arguments in (
        ["segment", tmp_path / HOSTILE, "-o", tmp_path / "mask.tif", "--model", tmp_path / HOSTILE],
        ["objects", tmp_path / HOSTILE, "-o", tmp_path / "objects.geojson"],
        ["export", "a", HOSTILE, "-o", "model.ts"],
        ["compare", tmp_path / HOSTILE, tmp_path / "a"],
        [HOSTILE],
    ):
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exit_code in (1, 2)
        assert not {"\x1b", "\x07", "\u202e"} & set(result.output)
        assert not any(line.startswith("Error: all") for line in result.output.splitlines())
        assert r"x\x1b]0;owned\x07\x1b[31m" in result.output


def test_log_messages_and_tracebacks_steer_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from gsd import output

    monkeypatch.setattr(logging.root, "handlers", [])
    output.log_to_stderr()
    logging.getLogger("genselfdiff").warning("%s: odd", HOSTILE)
    monkeypatch.setattr(logging.getLogger("genselfdiff"), "level", logging.DEBUG)
    output.report(InputError(f"{HOSTILE}: odd"))
    told = capsys.readouterr().err
    assert "\x1b" not in told
    assert "Traceback" in told or "InputError" in told
    assert told.count("\\x1b]0;owned\\x07") == 3


def test_a_full_disk_under_stdout_is_an_error() -> None:
    with open("/dev/full", "w") as full:
        ended = subprocess.run([GSD, "info"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert ended.returncode == 1
    assert ended.stderr == (b"Error: standard output: cannot be written: No space left on device\n")


def test_a_reader_that_has_enough_is_none() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run([GSD, "info"], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert ended.stderr == b""


@pytest.mark.parametrize("streams", ["<&- >&- 2>&-", "2>/dev/full"])
def test_streams_that_are_closed_or_full_end_no_run(tmp_path: Path, streams: str) -> None:
    told = tmp_path / "told"
    # An error of ours: its status shows that it was reached, and that nothing else went wrong.
    line = f'"{GSD}" compare "{tmp_path}/absent" {streams}; echo $? > "{told}"'
    subprocess.run(["sh", "-c", line], check=True, capture_output=True)
    assert told.read_text() == "1\n"


def test_a_closed_stream_lends_its_number_to_no_file() -> None:
    code = (
        "import os; from gsd.output import open_streams; open_streams();"
        "opened = os.open('/dev/null', os.O_RDONLY); os._exit(opened)"
    )
    python = Path(sysconfig.get_path("scripts")) / "python"
    ended = subprocess.run(["sh", "-c", f'"{python}" -c "{code}" <&- >&- 2>&-'], check=False)
    assert ended.returncode >= 3


def test_what_the_terminal_cannot_show_is_escaped() -> None:
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    ended = subprocess.run(
        [GSD, "compare", "\u00b5\u7d44"], env=environment, capture_output=True, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith(b"Error: ")


@pytest.mark.parametrize("rank", ["x"])
def test_a_rank_that_is_none_of_torchruns_is_no_rank(rank: str) -> None:
    environment = os.environ | {"RANK": rank, "WORLD_SIZE": "y"}
    ended = subprocess.run(
        [GSD, "compare", "a", "b"], env=environment, capture_output=True, check=False
    )
    assert ended.returncode == 1
    assert b"Error" in ended.stderr and b"Traceback" not in ended.stderr
