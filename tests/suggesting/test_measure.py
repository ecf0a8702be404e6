"""The table of the trial of fields that are chosen against fields that are drawn."""

import json
import sys
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def measure(monkeypatch) -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "suggest" / "measure.py"
    spec = util.spec_from_file_location("suggest_measure", path)
    assert spec is not None and spec.loader is not None
    module = util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def write(folder: Path, run, dice: dict[str, float]) -> None:
    scores = {image: {"dice": value, "aji": 0.5, "pq": 0.5} for image, value in dice.items()}
    (folder / f"{run.name}.json").write_text(json.dumps({**vars(run), "scores": scores}))


def test_differences_are_of_pairs_of_seed_and_image(tmp_path, measure, capsys) -> None:
    first, second = ({"a": 0.5, "b": 0.7}, {"a": 0.9, "c": 0.3})
    for seed, dice in enumerate((first, second)):
        write(tmp_path, measure.Run("monuseg", 3, "random", seed), dice)
        better = {image: value + 0.1 for image, value in dice.items()}
        write(tmp_path, measure.Run("monuseg", 3, "model", seed), better)
    write(tmp_path, measure.Run("monuseg", 3, "model", 2), {"a": 0.0})  # nothing to compare with
    measure.print_table(tmp_path)
    random, model = capsys.readouterr().out.splitlines()
    assert random.split()[:6] == ["monuseg", "3", "random", "2", "seeds", "dice"]
    assert "dice 0.600" in random
    assert "2 seeds  dice 0.700 +0.100 (+0.100 +0.100)" in model


def test_results_of_other_settings_are_left_out(tmp_path, measure, capsys) -> None:
    run = measure.Run("glas", 5, "random", 0)
    write(tmp_path, run, {"a": 0.5, "b": 0.5})
    (tmp_path / f"{run.name}.json").rename(tmp_path / "glas-5-random-seed0-00000000.json")
    measure.print_table(tmp_path)
    assert capsys.readouterr().out == ""
