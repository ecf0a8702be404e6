"""``gsd doctor``: the page and the exit status."""

import pytest
from click.testing import CliRunner

from genselfdiff.doctor import examination
from genselfdiff.doctor.findings import ok, page, warning, wrong
from gsd.main import main


@pytest.fixture(autouse=True)
def sound_machine(monkeypatch):
    monkeypatch.setattr(examination, "machine_findings", lambda: [ok("processor", "one")])


def run(*words):
    return CliRunner().invoke(main, ["doctor", *map(str, words)])


def test_nothing_is_wrong(darkness_model, write_slide, picture, tmp_path):
    slide = write_slide(picture(200, 200))
    (tmp_path / "masks").mkdir()
    ended = run(slide, "--model", darkness_model, "-o", tmp_path / "masks")
    assert ended.exit_code == 0, ended.output
    assert [line for line in ended.stdout.splitlines() if line[:1].isalpha()] == [
        "machine",
        "storage",
        "model",
        "slide",
    ]
    assert ended.stdout.splitlines()[-1].startswith("0 wrong")
    assert not list((tmp_path / "masks").iterdir())


def test_what_is_wrong_is_told_and_the_rest_looked_at(tmp_path, write_slide, picture):
    slide = write_slide(picture(200, 200))
    ended = run(slide, "--model", tmp_path / "none.ts", "--dask", "local")
    assert ended.exit_code == 1
    lines = ended.stdout.splitlines()
    assert any(line.startswith("  wrong    model ") and "none.ts" in line for line in lines)
    assert any(line.startswith("  ok       sample ") for line in lines)
    assert any(line.startswith("  warning  cluster ") for line in lines)


def test_the_page():
    sections = {"machine": [ok("cpu", "fast"), warning("memory", "little", "buy some")]}
    assert list(page(sections | {"model": [wrong("model", "gone")]})) == [
        "machine",
        "  ok       cpu     fast",
        "  warning  memory  little",
        "                   to do: buy some",
        "",
        "model",
        "  wrong    model   gone",
        "",
        "1 wrong, 1 warning",
    ]
