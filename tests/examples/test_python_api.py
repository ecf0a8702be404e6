"""What the examples say runs."""

import csv
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_package_from_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = ROOT / "examples" / "python_api.py"
    monkeypatch.setattr("sys.argv", [str(script), str(tmp_path)])
    runpy.run_path(str(script), run_name="__main__")
    with (tmp_path / "mask_objects.csv").open(newline="") as table:
        nuclei = list(csv.DictReader(table))
    assert nuclei
    assert f"{len(nuclei)} nuclei" in capsys.readouterr().out
