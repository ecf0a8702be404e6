import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from genselfdiff.errors import InputError, ModelError, OutputError
from genselfdiff.evaluation.evaluate import evaluate_model
from genselfdiff.evaluation.pixel_metrics import confusion, dice, iou
from genselfdiff.inference.model_file import ModelInfo, save_model


class Darkness(nn.Module):
    """Class 1 where the green channel is below the middle."""

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        green = 50 * x[:, 1:2]
        return torch.cat((green, -green), dim=1)


def discs(height: int, width: int, radius: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width] % (3 * radius) - 1.5 * radius
    return (np.hypot(y, x) < radius).astype(np.uint8)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    info = ModelInfo(("background", "nucleus"), ((0, 0, 0), (255, 0, 0)), 0.5, 64, "minus_one_one")
    save_model(Darkness(), info, tmp_path / "model.ts")
    return tmp_path / "model.ts"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Images and masks in folders, the truth, and what the model must answer at its own mpp."""
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    truths, answers = {}, {}
    for i, (height, width) in enumerate([(90, 130), (64, 64), (51, 200)]):
        seen = discs(height, width, 8)
        truth = seen.copy()
        truth[: 10 * i] = 0  # the model will be wrong there
        name = f"field{i}"
        pixels = np.where(seen[..., None], (90, 40, 130), (225, 180, 200)).astype(np.uint8)
        Image.fromarray(pixels).save(images / f"{name}.png")
        Image.fromarray(truth).save(masks / f"{name}.png")
        truths[name], answers[name] = truth, seen
    return images, masks, truths, answers


def test_scores(model, folders):
    images, masks, truths, answers = folders
    report = evaluate_model(model, images, masks, mpp=0.5, device="cpu")
    assert [score.name for score in report.images] == ["field0", "field1", "field2"]
    matrices = [confusion(truths[name], answers[name], 2) for name in truths]
    for score, matrix in zip(report.images, matrices, strict=True):
        np.testing.assert_array_equal(score.matrix, matrix)
    assert report.images[0].dice.tolist() == [1, 1]
    assert report.images[2].dice[1] < 1
    np.testing.assert_allclose(report.mean_dice, np.mean([dice(m) for m in matrices], axis=0))
    np.testing.assert_allclose(report.mean_iou, np.mean([iou(m) for m in matrices], axis=0))
    np.testing.assert_allclose(report.overall.dice, dice(sum(matrices)))
    np.testing.assert_allclose(report.overall.iou, iou(sum(matrices)))


def test_at_another_resolution_scores_are_of_the_images_own_pixels(model, folders):
    images, masks, truths, _ = folders
    report = evaluate_model(model, images, masks, mpp=0.25, device="cpu")
    for score in report.images:
        assert score.matrix.sum() == truths[score.name].size
    assert 0.9 < report.images[0].dice[1] < 1


def test_table(model, folders):
    images, masks, *_ = folders
    report = evaluate_model(model, images, masks, mpp=0.5, device="cpu")
    lines = report.table().splitlines()
    assert lines[0].split() == ["image", "Dice", "nucleus", "IoU", "nucleus"]
    assert lines[2].split() == ["field0", "1.0000", "1.0000"]
    assert lines[-2].split()[-2:] == [f"{report.mean_dice[1]:.4f}", f"{report.mean_iou[1]:.4f}"]
    overall = report.overall
    assert lines[-1].split() == ["overall", f"{overall.dice[1]:.4f}", f"{overall.iou[1]:.4f}"]
    assert len({len(line) for line in lines}) == 1


def test_files(tmp_path, model, folders):
    images, masks, *_ = folders
    report = evaluate_model(model, images, masks, mpp=0.5, device="cpu")
    report.write_csv(tmp_path / "scores.csv")
    report.write_json(tmp_path / "scores.json")
    with (tmp_path / "scores.csv").open() as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    assert float(rows["field2"]["dice_nucleus"]) == report.images[2].dice[1]
    assert float(rows["overall"]["iou_background"]) == report.overall.iou[0]
    content = json.loads((tmp_path / "scores.json").read_text())
    assert content["classes"] == ["background", "nucleus"]
    assert content["images"][1]["confusion"] == report.images[1].matrix.tolist()
    assert content["mean"]["dice"]["nucleus"] == report.mean_dice[1]
    with pytest.raises(OutputError):
        report.write_csv(tmp_path / "missing" / "scores.csv")


@pytest.mark.parametrize("foreground", [False, True])
def test_masks_of_0_and_255(model, folders, foreground):
    images, masks, truths, _ = folders
    for name, truth in truths.items():
        Image.fromarray(255 * truth).save(masks / f"{name}.png")
    report = evaluate_model(model, images, masks, mpp=0.5, device="cpu", foreground=foreground)
    assert report.images[0].dice.tolist() == [1, 1]


def test_instance_numbers_need_foreground(model, folders):
    images, masks, truths, _ = folders
    numbered = truths["field0"].astype(np.uint16) * 700
    Image.fromarray(numbered).save(masks / "field0.png")
    with pytest.raises(InputError, match="--foreground"):
        evaluate_model(model, images, masks, mpp=0.5, device="cpu")
    report = evaluate_model(model, images, masks, mpp=0.5, device="cpu", foreground=True)
    assert report.images[0].dice.tolist() == [1, 1]


def test_what_cannot_be_evaluated(tmp_path, model, folders):
    images, masks, *_ = folders
    with pytest.raises(InputError, match="--mpp"):
        evaluate_model(model, images, masks, device="cpu")
    with pytest.raises(ModelError, match="no such"):
        evaluate_model(tmp_path / "absent.ts", images, masks, mpp=0.5)
    (masks / "field1.png").unlink()
    with pytest.raises(InputError, match="field1"):
        evaluate_model(model, images, masks, mpp=0.5, device="cpu")


def test_foreground_fits_two_classes_only(tmp_path, folders):
    class Three(nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return x

    colors = ((0, 0, 0), (1, 1, 1), (2, 2, 2))
    info = ModelInfo(("background", "a", "b"), colors, None, 64, "zero_one")
    save_model(Three(), info, tmp_path / "three.ts")
    images, masks, *_ = folders
    with pytest.raises(InputError, match="3 classes"):
        evaluate_model(tmp_path / "three.ts", images, masks, foreground=True, device="cpu")


def test_a_class_that_is_nowhere_has_no_score_and_leaves_the_mean_alone(tmp_path, model, folders):
    images, masks, *_ = folders
    Image.new("RGB", (64, 64), (225, 180, 200)).save(images / "empty.png")
    Image.new("L", (64, 64)).save(masks / "empty.png")
    report = evaluate_model(model, images, masks, mpp=0.5, device="cpu")
    scores = {score.name: score.dice[1] for score in report.images}
    assert np.isnan(scores.pop("empty"))
    assert report.mean_dice[1] == pytest.approx(np.mean(list(scores.values())))
    assert report.table().splitlines()[2].split() == ["empty", "-", "-"]
    report.write_json(tmp_path / "scores.json")
    assert json.loads((tmp_path / "scores.json").read_text())["images"][0]["dice"] == {
        "background": 1,
        "nucleus": None,
    }
