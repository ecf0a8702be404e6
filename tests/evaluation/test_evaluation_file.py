import csv
import json
import math
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genselfdiff.errors import InputError, OutputError
from genselfdiff.evaluation.evaluation_file import read_evaluation, write_evaluation
from genselfdiff.evaluation.page import write_page
from genselfdiff.evaluation.scores import CLASS_METRICS, EvaluationReport
from genselfdiff.evaluation.scoring import Prediction, Truth, score_image
from genselfdiff.evaluation.tables import text_table, write_scores_csv


def made(classes: int = 3, mpps: tuple[float | None, ...] = (0.25, 0.25, 0.25)) -> EvaluationReport:
    """Images of random blocks; the last class is nowhere in the first image."""
    random = np.random.default_rng(0)
    images = []
    for number, mpp in enumerate(mpps):
        seen = classes - (number == 0)
        truth, other = (
            np.kron(random.integers(0, seen, (6, 8)), np.ones((5, 5), int)).astype(np.uint8)
            for _ in range(2)
        )
        prediction = np.where(random.random(truth.shape) < 0.9, truth, other)
        given = f"field{number}", Truth(truth), Prediction(prediction), classes
        images.append(score_image(*given, mpp=mpp).scores)
    names = ("background", "nucleus", "stroma")[:classes]
    return EvaluationReport(Path("models/model.ts"), names, {"instances": False}, tuple(images))


@pytest.fixture
def report() -> EvaluationReport:
    return made()


@pytest.fixture
def content(tmp_path, report) -> dict:
    write_evaluation(tmp_path / "scores.json", report)
    return json.loads((tmp_path / "scores.json").read_text())


def test_means_are_of_the_images_where_a_score_is_defined(report):
    for metric in CLASS_METRICS:
        values = np.array([image.by_class[metric.key][2] for image in report.images])
        summary = report.by_class[metric.key][2]
        expected = 3 if metric.key == "accuracy" else 2
        assert summary.images == expected
        assert summary.mean == pytest.approx(np.nanmean(values))
        low, high = summary.interval
        assert np.nanmin(values) <= low <= summary.mean <= high <= np.nanmax(values)


def test_overall_is_of_pixels_and_objects_pooled(report):
    matrix = sum(image.matrix for image in report.images)
    dice = 2 * matrix[1, 1] / (matrix[1].sum() + matrix[:, 1].sum())
    assert report.by_class["dice"][1].overall == pytest.approx(dice)
    counts = [image.instances[1] for image in report.images]
    pq = sum(c.iou_sum for c in counts) / sum((c.truth + c.predicted) / 2 for c in counts)
    assert report.by_class["pq"][1].overall == pytest.approx(pq)
    aji = sum(c.aji_intersection for c in counts) / sum(c.aji_union for c in counts)
    assert report.by_class["aji"][1].overall == pytest.approx(aji)
    distances = report.by_class["hd95_um"][1]
    assert distances.overall == distances.mean
    right = np.trace(matrix) / matrix.sum()
    assert report.of_image["accuracy"].overall == pytest.approx(right)


def test_json(content, report):
    assert content["format"] == 2
    assert content["model"] == "models/model.ts"
    assert content["classes"] == ["background", "nucleus", "stroma"]
    assert content["mpp"] == 0.25
    assert [entry["image"] for entry in content["images"]] == ["field0", "field1", "field2"]
    first = content["images"][0]
    assert first["by_class"]["stroma"]["dice"] is None
    assert first["by_class"]["nucleus"]["aji"] == report.images[0].by_class["aji"][1]
    assert first["by_class"].keys() == set(content["classes"])
    assert first["by_class"]["nucleus"].keys() == content["metrics"]["by_class"].keys()
    assert first["of_image"].keys() == content["metrics"]["of_image"].keys()
    assert first["objects"]["nucleus"]["truth"] == report.images[0].instances[1].truth
    assert first["confusion"] == report.images[0].matrix.tolist()
    assert content["confusion"] == report.matrix.tolist()
    summary = content["summary"]["by_class"]["nucleus"]["dice"]
    expected = report.by_class["dice"][1]
    assert summary == {
        "mean": expected.mean,
        "interval": list(expected.interval),
        "images": 3,
        "overall": expected.overall,
    }
    assert content["summary"]["by_class"]["background"]["hd95_px"] == {
        "mean": None,
        "interval": None,
        "images": 0,
        "overall": None,
    }


def test_what_is_read_is_what_was_written(tmp_path, report, content):
    again = read_evaluation(tmp_path / "scores.json")
    assert again.model == report.model
    assert again.settings == report.settings
    write_evaluation(tmp_path / "again.json", again)
    assert json.loads((tmp_path / "again.json").read_text()) == content


def test_images_of_several_or_unknown_resolutions(tmp_path):
    for mpps in ((0.25, 0.5), (None, None)):
        mixed = made(mpps=mpps)
        assert mixed.mpp is None
        write_evaluation(tmp_path / "scores.json", mixed)
        assert [i.mpp for i in read_evaluation(tmp_path / "scores.json").images] == list(mpps)
    assert mixed.by_class["hd95_um"][1].images == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no json", "is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[1, 2]", "something else"),
        ('{"classes": [], "images": []}', "something else"),
        ('{"kind": "gsd evaluation", "format": 1}', "format 1"),
        ('{"kind": "gsd evaluation", "format": 2}', "KeyError"),
        (
            '{"kind": "gsd evaluation", "format": 2, "model": "m", "classes": ["a"],'
            ' "settings": {}, "images": []}',
            "no image",
        ),
    ],
)
def test_files_that_are_no_evaluation(tmp_path, text, message):
    (tmp_path / "scores.json").write_text(text)
    with pytest.raises(InputError, match=rf"scores\.json: .*{message}"):
        read_evaluation(tmp_path / "scores.json")
    with pytest.raises(InputError, match=r"absent\.json: cannot be read"):
        read_evaluation(tmp_path / "absent.json")


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: entry.pop("by_class"),
        lambda entry: entry.update(confusion=[[1, 2], [3, 4]]),
        lambda entry: entry["objects"]["nucleus"].pop("truth") and entry["objects"].clear(),
        lambda entry: entry.update(mpp="a quarter"),
        lambda entry: entry.update(mpp=float("nan")),
        lambda entry: entry.update(mpp=0),
        lambda entry: entry.update(image=None),
        lambda entry: entry.update(image="field0"),
        lambda entry: entry.update(width=10**400),
        lambda entry: entry["confusion"][0].__setitem__(0, -1),
        lambda entry: entry["confusion"][0].__setitem__(0, 1.5),
        lambda entry: entry["confusion"][0].__setitem__(0, 2**63),
        lambda entry: entry["confusion"].append([]),
        lambda entry: entry["objects"]["nucleus"].update(truth=True),
        lambda entry: entry["objects"]["nucleus"].update(matched=1e300),
        lambda entry: entry["objects"]["nucleus"].update(iou_sum=float("inf")),
        lambda entry: entry["objects"]["nucleus"].update(unknown=1),
        lambda entry: entry["objects"]["nucleus"].pop("truth_dice"),
        lambda entry: entry["by_class"]["nucleus"].update(hd95_px="far"),
        lambda entry: entry["by_class"]["nucleus"].update(hd95_px=-1),
    ],
)
def test_damaged_images(tmp_path, content, damage):
    damage(content["images"][1])
    (tmp_path / "scores.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"scores\.json: is no evaluation .it is damaged"):
        read_evaluation(tmp_path / "scores.json")


def test_names_of_other_people(tmp_path, report):
    name = os.fsdecode(b"=sl\xe4ide\x1b[31m")
    images = (replace(report.images[0], name=name), *report.images[1:])
    odd = replace(report, model=Path(name), images=images, classes=("background", "+n", "<b>\n"))
    write_evaluation(tmp_path / "scores.json", odd)
    again = read_evaluation(tmp_path / "scores.json")
    assert (again.model, again.images[0].name, again.classes) == (odd.model, name, odd.classes)
    write_scores_csv(tmp_path / "scores.csv", odd)
    cells = (tmp_path / "scores.csv").read_text(encoding="utf-8")
    assert "\n'=sl\\xe4ide\\x1b[31m," in cells
    assert not re.search(r"(^|,)[=+@-][^0-9]", cells, re.MULTILINE)
    assert text_table(odd).replace("\n", "").isprintable()
    assert "sl\\xe4ide\\x1b[31m" in text_table(odd)
    write_page(tmp_path / "scores.html", odd, {})
    page = (tmp_path / "scores.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;\\x0a" in page


def test_csv(tmp_path, report):
    write_scores_csv(tmp_path / "scores.csv", report)
    with (tmp_path / "scores.csv").open() as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    assert float(rows["field2"]["dice_nucleus"]) == report.images[2].by_class["dice"][1]
    assert rows["field0"]["dice_stroma"] == ""
    assert float(rows["overall"]["iou_background"]) == report.by_class["iou"][0].overall
    summary = report.by_class["hd95_um"][1]
    assert float(rows["mean of images"]["hd95_um_nucleus"]) == summary.mean
    ends = [float(rows[f"{end} 95 %"]["hd95_um_nucleus"]) for end in ("lower", "upper")]
    assert tuple(ends) == summary.interval
    assert float(rows["images"]["dice_stroma"]) == 2
    assert float(rows["field1"]["accuracy"]) == report.images[1].of_image["accuracy"]
    with pytest.raises(OutputError):
        write_scores_csv(tmp_path / "missing" / "scores.csv", report)


def test_table_of_one_class():
    report = made(2)
    tables = [table.splitlines() for table in text_table(report).split("\n\n")]
    by_image, nucleus, together = tables
    titles = by_image[0].replace(", ", ",").split()
    assert titles == ["image", "Dice", "IoU", "HD95,um", "AJI", "PQ"]
    dice = report.images[1].by_class["dice"][1]
    assert by_image[3].split()[:2] == ["field1", f"{dice:.4f}"]
    assert nucleus[0].split()[:2] == ["nucleus", "mean"]
    summary = report.by_class["dice"][1]
    low, high = summary.interval
    cells = ["Dice", f"{summary.mean:.4f}", f"{low:.4f}", "to", f"{high:.4f}", "2"]
    assert nucleus[2].split() == [*cells, f"{summary.overall:.4f}"]
    assert together[0].startswith("all classes")
    assert all(len({len(line) for line in table}) == 1 for table in tables)


def test_table_of_several_classes(report):
    by_image, nucleus, stroma, _ = text_table(report).split("\n\n")
    assert by_image.splitlines()[0].split() == ["image", "Dice", "nucleus", "Dice", "stroma"]
    assert by_image.splitlines()[2].split()[-1] == "-", "it is nowhere in the first image"
    assert "HD95, um" in nucleus
    assert stroma.startswith("stroma")


def test_tables_without_resolution_have_pixels():
    told = text_table(made(2, (None,)))
    assert "HD95, px" in told
    assert "um" not in told
    assert math.isnan(made(2, (None,)).by_class["hd95_um"][1].mean)
