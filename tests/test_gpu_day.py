"""The GPU day: its time is shared out, what it runs cannot stop it, and all of it is rehearsed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gpu_day
import pytest
from gpu.commands import Command, Day, run_command
from gpu.plan import Step, shares
from gpu.report import Report

ROOT = Path(__file__).parents[1]


def step(name: str, wanted: float = 10, least: float = 5, worth: int = 1) -> Step:
    return Step(name, name.capitalize(), wanted, least, worth, lambda day, seconds: ())


def test_steps_get_what_they_want_where_there_is_time() -> None:
    assert shares([step("a"), step("b", 20)], 100) == {"a": 10, "b": 20}


def test_steps_shrink_towards_their_least() -> None:
    assert shares([step("a"), step("b", 20)], 20) == {"a": 7.5, "b": 12.5}


def test_those_of_least_worth_are_left_out() -> None:
    steps = [step("a", worth=2), step("b", worth=1), step("c", worth=3)]
    assert shares(steps, 12) == {"a": 6, "c": 6}
    assert shares(steps, 4) == {}


@pytest.fixture
def day(tmp_path: Path) -> Day:
    for folder in ("out", "work"):
        (tmp_path / folder).mkdir()
    return Day(tmp_path / "out", tmp_path / "work", rehearsal=True)


def test_what_cannot_run_takes_no_time_from_the_others(day: Day) -> None:
    given = []

    def commands(kind: str) -> Callable[[Day, float], Iterator[Command]]:
        def make(day: Day, seconds: float) -> Iterator[Command]:
            given.append((kind, seconds))
            yield Command(["true"], absent="no data" if kind == "recipe" else "")

        return make

    steps = [Step(kind, kind, 30, 5, 1, commands(kind)) for kind in ("tests", "recipe")]
    report = Report(day.out)
    gpu_day.run_steps(steps, day, report, time.monotonic() + 20)
    begun = [seconds for kind, seconds in given if kind == "tests"][-1]
    assert begun == pytest.approx(20, abs=1)
    assert "| tests | ok |" in report.summary()
    assert "| recipe | not here |" in report.summary()


def python(code: str) -> Command:
    return Command([sys.executable, "-c", code])


def test_what_was_found_before_the_time_was_over_counts(day: Day) -> None:
    found = []
    code = (
        "import os, time; print('{\"a\": 1}', flush=True); print('on its way', flush=True);"
        " os.fork(); time.sleep(60)"
    )
    ending = run_command(python(code), day, 2.0, found.append)
    assert ending.status is None
    assert ending.seconds < 20
    assert found == [{"a": 1}]
    assert ending.tail == "on its way"
    assert "on its way" in (day.out / "log.txt").read_text()


def test_nobody_waits_for_what_a_command_leaves_in_a_session_of_its_own(day: Day) -> None:
    sleep = "import time; time.sleep(60)"
    left = f"subprocess.Popen([sys.executable, '-c', {sleep!r}], start_new_session=True)"
    begin = time.monotonic()
    ending = run_command(python(f"import subprocess, sys; {left}; {sleep}"), day, 2.0, print)
    assert ending.status is None
    assert time.monotonic() - begin < 30


def test_a_program_that_is_not_there_is_a_failure_like_others(day: Day) -> None:
    ending = run_command(Command(["/no/such/program"]), day, 5.0, print)
    assert ending.status == 127
    assert "/no/such/program is not there" in ending.tail


def test_being_cut_off_is_no_failure_where_it_may_be(day: Day) -> None:
    report = Report(day.out)
    report.begin(step("first"), 5)
    command = Command(["sleep", "60"], may_be_cut=True)
    report.ended(command, run_command(command, day, 0.1, report.take))
    report.take({"a": 1})
    report.end()
    assert not report.failed
    assert "cut off after" in (day.out / "table.md").read_text()


def test_a_step_that_fails_says_so_and_the_report_is_whole_at_every_moment(day: Day) -> None:
    report = Report(day.out)
    first, second = step("first"), step("second")
    report.begin(first, 5)
    report.take({"speed": 1 / 3, "of": "a|b"})
    table = (day.out / "table.md").read_text()
    assert "| 0.3333 | a/b |" in table
    command = python("print('why'); raise SystemExit(3)")
    report.ended(command, run_command(command, day, 60, report.take))
    report.end()
    report.begin(second, 5)
    report.take({"right": False})
    report.end()
    report.leave_out(step("third"), "left out: 1 s remained")
    report.write()
    assert report.failed
    table = (day.out / "table.md").read_text()
    assert "| first | FAILED |" in table
    assert "exit status 3\n\n```\nwhy\n```" in table
    assert "1 of 1 are wrong" in table
    assert "| third | left out: 1 s remained |" in table
    lines = [json.loads(line) for line in (day.out / "results.jsonl").read_text().splitlines()]
    assert {"step": "first", "speed": 1 / 3, "of": "a|b"}.items() <= lines[0].items()
    assert lines[-1]["status"] == "left out: 1 s remained"


def test_a_report_without_failures_is_no_failure(day: Day) -> None:
    report = Report(day.out)
    report.begin(step("first"), 5)
    report.note("not here: a GPU")
    report.end()
    assert not report.failed
    assert "| first | not here |" in report.summary()


def test_a_rehearsal_goes_through_every_step(tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    pytest.importorskip("scikit_build_core", reason="the build backend is not installed")
    program = str(ROOT / "benchmarks" / "gpu_day.py")
    done = subprocess.run(
        [sys.executable, program, "--rehearse", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    statuses = {line["step"]: line["status"] for line in lines if "status" in line}
    assert len(statuses) == 13
    assert statuses.pop("racecheck") == "not here"
    assert set(statuses.values()) == {"ok"}
    found = {line["step"] for line in lines if line.keys().isdisjoint({"status", "note"})}
    assert found >= statuses.keys() - {"autotune"}  # it leaves a file
    names = {path.name for path in tmp_path.iterdir()}
    assert {"results.jsonl", "table.md", "log.txt", "run.tar.0", "tiles.json"} <= names
    assert len(names) <= 8
