import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file
from scipy import ndimage
from scipy.stats import wilcoxon

from genselfdiff.errors import InputError, ModelError
from genselfdiff.evaluation.evaluation_file import write_evaluation
from genselfdiff.evaluation.scores import EvaluationReport
from genselfdiff.evaluation.scoring import Prediction, Truth, score_image
from genselfdiff.training.comparison import compare
from genselfdiff.training.curves import plot_label
from genselfdiff.training.runs import finetune, pretrain
from genselfdiff.training.settings.stage_configs import FinetuneConfig


@pytest.fixture
def runs(tmp_path, finetune_config):
    """Three runs of one stage, the last with fewer labels and another split."""
    config = dataclasses.replace(finetune_config, val="patient0,patient1")
    settings = (
        {},
        {"loss_form": "pixel", "seed": 3},
        {"train_images": 2, "val": "patient1,patient2"},
    )
    return [
        finetune(dataclasses.replace(config, **changed), tmp_path / f"run{i}", progress=False)
        for i, changed in enumerate(settings)
    ]


def images_of(run):
    best = max(
        (r for r in run.read_metrics() if "validation" in r), key=lambda r: r["validation"]["score"]
    )
    return best["images"]


def test_odd_names_end_neither_a_run_nor_a_comparison(tmp_path, fields, finetune_config):
    for number, name in enumerate(("x" * 240, "\udce4$a^$")):
        for folder in (fields / "images", fields / "masks"):
            (folder / f"patient{number}-a.png").rename(folder / f"{name}.png")
    classes = ("background", "_$x^$ Dr\u00fcse")
    config = dataclasses.replace(finetune_config, classes=classes, val="x*,*^*", steps=4)
    run = finetune(config, tmp_path / "_$y_$\udce4", progress=False)
    assert len(list(run.fields.iterdir())) == 2
    kept = FinetuneConfig.read(run.config)
    assert set(kept.val) == {"x" * 240, "\udce4$a^$"}
    finetune(dataclasses.replace(kept, steps=5), run.path, resume=True, progress=False)
    other = finetune(dataclasses.replace(kept, seed=1), tmp_path / "other", progress=False)
    comparison = compare([run.path, other.path])
    assert comparison.differences[1].images == 2
    comparison.write_csv(tmp_path / "table.csv")
    comparison.draw(tmp_path / "plot.png")
    assert "_$y_$\\xe4" in (tmp_path / "table.csv").read_text()
    assert plot_label("_$x$") == r" _\$x\$"


def test_differences_are_those_of_the_common_images(tmp_path, runs):
    comparison = compare([run.path for run in runs])
    first, second, third = (images_of(run) for run in runs)
    own, other, partly = comparison.differences
    assert own is None
    assert other.images == 2
    assert other.mean == pytest.approx(np.mean([second[k] - first[k] for k in first]))
    assert partly.images == 1, "patient1 alone is in both"
    assert partly.mean == pytest.approx(third["patient1-a"] - first["patient1-a"])
    assert partly.interval is None
    comparison.write_csv(tmp_path / "table.csv")
    with open(tmp_path / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["run0", "run1", "run2"]
    assert [row["training images"] for row in rows] == ["3", "3", "2"]
    assert [row["loss form"] for row in rows] == ["scalar", "pixel", "scalar"]
    assert "steps" not in rows[0], "a setting that all share"
    assert rows[1]["minus run0"] == f"{other.mean:+.4f}"
    comparison.draw(tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.width > 2 * picture.height


def evaluation(path, predictions, **settings):
    """What gsd evaluate writes of images 20 pixels long, of which so many are predicted."""
    truth = np.zeros((20, 20), np.uint8)
    truth[:, :10] = 1
    images = []
    for name, length in predictions.items():
        prediction = np.zeros_like(truth)
        prediction[:, :length] = 1
        given = name, Truth(truth), Prediction(prediction), 2
        images.append(score_image(*given, mpp=0.5).scores)
    report = EvaluationReport(
        Path(path.stem + ".ts"), ("background", "gland"), settings, tuple(images)
    )
    write_evaluation(path, report)
    return path


def test_evaluations_are_compared_over_their_images(tmp_path, runs):
    lengths = {f"i{number}": 10 - number for number in range(1, 9)}
    first = evaluation(tmp_path / "first.json", lengths)
    better = evaluation(tmp_path / "better.json", {k: v + 1 for k, v in lengths.items()} | {"x": 1})
    comparison = compare([first, better])
    _, found = comparison.differences

    def dice(length):
        return 2 * length / (10 + length)

    expected = np.array([dice(v + 1) - dice(v) for v in lengths.values()])
    assert found.images == 8
    assert found.mean == pytest.approx(expected.mean())
    assert found.interval[0] < expected.mean() < found.interval[1]
    assert found.interval[0] > expected.min()
    assert found.p_value == wilcoxon(expected).pvalue == 2 / 2**8
    assert "better.ts" in comparison.table()
    with pytest.raises(InputError, match="run0 has a validation Dice, but first a mean Dice"):
        compare([first, runs[0].path])
    same = compare([first, first]).differences[1]
    assert same.mean == 0
    assert same.p_value is None


def test_what_is_not_the_same_is_told(tmp_path):
    first = evaluation(tmp_path / "first.json", {"i": 3}, instances=False, min_area=0.0)
    other = evaluation(tmp_path / "other.json", {"j": 4}, instances=True, min_area=0.0)
    title, _, *rows, apart = compare([first, other]).table().splitlines()
    assert "instances" in title
    assert "min area" not in title
    assert ["True" in row for row in rows] == [False, True]
    assert apart == "other and first have no image in common: their scores do not compare"
    assert "in common" not in compare([first, first]).table()


def test_stage_1_is_compared_by_its_loss(tmp_path, pretrain_config, runs):
    longer = dataclasses.replace(pretrain_config, steps=12)
    stage1 = [
        pretrain(config, tmp_path / name, progress=False)
        for name, config in (("a", pretrain_config), ("b", longer))
    ]
    table = compare([run.path for run in stage1]).table()
    assert "validation loss" in table
    assert "Wilcoxon" not in table, "tiles have no names"
    with pytest.raises(InputError, match="run0 has a validation Dice, but a a validation loss"):
        compare([stage1[0].path, runs[0].path])


def test_a_score_of_objects_is_not_compared_with_dice(tmp_path, runs, fields, finetune_config):
    config = dataclasses.replace(finetune_config, foreground=True, instances=True, steps=1)
    for path in (fields / "masks").iterdir():
        numbers, _ = ndimage.label(np.asarray(Image.open(path)) > 0)
        Image.fromarray(numbers.astype(np.uint16)).save(path)
    objects = finetune(config, tmp_path / "objects", progress=False)
    assert "validation PQ" in compare([objects.path, objects.path]).table()
    with pytest.raises(InputError, match="objects has a validation PQ, but run0 a validation Dice"):
        compare([runs[0].path, objects.path])


def test_what_cannot_be_compared_is_told(tmp_path, runs):
    with pytest.raises(InputError, match="at least two"):
        compare([runs[0].path])
    (tmp_path / "scores.json").write_text(json.dumps({"a": 1}))
    with pytest.raises(InputError, match=r"scores\.json"):
        compare([runs[0].path, tmp_path / "scores.json"])
    with pytest.raises(ModelError, match="not a run folder"):
        compare([runs[0].path, tmp_path])
    save_file({}, runs[1].best, {"gsd": '{"format": "2", "step": 1}'})
    with pytest.raises(ModelError, match=r"best\.safetensors: damaged: it has no score"):
        compare([run.path for run in runs])
    runs[1].best.unlink()
    with pytest.raises(ModelError, match=r"best\.safetensors: not there"):
        compare([run.path for run in runs])


def test_runs_of_one_name_are_told_apart(tmp_path, runs):
    (tmp_path / "other").mkdir()
    moved = runs[1].path.rename(tmp_path / "other" / "run0")
    names = [candidate.name for candidate in compare([runs[0].path, moved]).candidates]
    assert names == [str(runs[0].path), str(moved)]
