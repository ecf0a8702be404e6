from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from genselfdiff.errors import InputError, ModelError
from genselfdiff.evaluation.evaluate import evaluate
from genselfdiff.evaluation.pixel_metrics import confusion, dice
from genselfdiff.evaluation.scoring import ObjectOptions
from genselfdiff.models.model_file import save_model
from genselfdiff.models.model_info import ModelInfo


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
    report = evaluate(model, images, masks, mpp=0.5, device="cpu")
    assert [score.name for score in report.images] == ["field0", "field1", "field2"]
    matrices = [confusion(truths[name], answers[name], 2) for name in truths]
    for score, matrix in zip(report.images, matrices, strict=True):
        np.testing.assert_array_equal(score.matrix, matrix)
        np.testing.assert_array_equal(score.by_class["dice"], dice(matrix))
        assert score.mpp == 0.5
    assert report.images[2].by_class["dice"][1] < 1
    assert report.by_class["dice"][1].overall == dice(sum(matrices))[1]
    counts = report.images[0].instances[1]
    assert counts.truth == counts.predicted == counts.matched > 10


def test_at_another_resolution_scores_are_of_the_images_own_pixels(model, folders):
    images, masks, truths, _ = folders
    report = evaluate(model, images, masks, mpp=0.25, device="cpu")
    for score in report.images:
        assert score.matrix.sum() == truths[score.name].size
    assert 0.9 < report.images[0].by_class["dice"][1] < 1


def test_every_case_can_be_watched(model, folders):
    images, masks, truths, answers = folders
    cases = []
    report = evaluate(model, images, masks, mpp=0.5, device="cpu", watch=cases.append)
    for case, scores in zip(cases, report.images, strict=True):
        assert case.comparison.scores is scores
        np.testing.assert_array_equal(case.truth, truths[scores.name])
        np.testing.assert_array_equal(case.prediction, answers[scores.name])
        assert case.image.shape == (*case.truth.shape, 3)


@pytest.mark.parametrize("foreground", [False, True])
def test_masks_of_0_and_255(model, folders, foreground):
    images, masks, truths, _ = folders
    for name, truth in truths.items():
        Image.fromarray(255 * truth).save(masks / f"{name}.png")
    report = evaluate(model, images, masks, mpp=0.5, device="cpu", foreground=foreground)
    assert report.images[0].by_class["dice"].tolist() == [1, 1]


def test_instance_numbers_need_foreground(model, folders):
    images, masks, truths, _ = folders
    numbered = truths["field0"].astype(np.uint16) * 700
    Image.fromarray(numbered).save(masks / "field0.png")
    with pytest.raises(InputError, match="--foreground"):
        evaluate(model, images, masks, mpp=0.5, device="cpu")
    report = evaluate(model, images, masks, mpp=0.5, device="cpu", foreground=True)
    assert report.images[0].by_class["dice"].tolist() == [1, 1]


def test_what_cannot_be_evaluated(tmp_path, model, folders):
    images, masks, *_ = folders
    with pytest.raises(InputError, match="--mpp"):
        evaluate(model, images, masks, device="cpu")
    with pytest.raises(ModelError, match="no such"):
        evaluate(tmp_path / "absent.ts", images, masks, mpp=0.5)
    (masks / "field1.png").unlink()
    with pytest.raises(InputError, match="field1"):
        evaluate(model, images, masks, mpp=0.5, device="cpu")


def test_foreground_fits_two_classes_only(tmp_path, folders):
    class Three(nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return x

    colors = ((0, 0, 0), (1, 1, 1), (2, 2, 2))
    info = ModelInfo(("background", "a", "b"), colors, None, 64, "zero_one")
    save_model(Three(), info, tmp_path / "three.ts")
    images, masks, *_ = folders
    with pytest.raises(InputError, match="3 classes"):
        evaluate(tmp_path / "three.ts", images, masks, foreground=True, device="cpu")


def test_numbers_of_foreground_masks_are_the_true_objects(model, folders, caplog):
    caplog.set_level("INFO", "genselfdiff")
    images, masks, truths, _ = folders
    for name, truth in truths.items():
        numbers = truth.astype(np.uint16)
        numbers[:, truth.shape[1] // 2 :] *= 300
        Image.fromarray(numbers).save(masks / f"{name}.png")
    report = evaluate(model, images, masks, mpp=0.5, device="cpu", foreground=True)
    assert [score.instances[1].truth for score in report.images] == [2, 2, 2]
    assert report.settings["true_objects"] == "numbers"
    assert "taken for numbers of objects" in caplog.text


def test_masks_with_soft_edges_or_of_two_kinds_have_the_objects_of_sharp_ones(model, folders):
    images, masks, truths, _ = folders
    sharp = evaluate(model, images, masks, mpp=0.5, device="cpu")
    soft = np.kron(truths["field0"], np.full((4, 4), 255, np.uint8))
    soft = np.asarray(Image.fromarray(np.roll(soft, 1, (0, 1))).reduce(4))
    Image.fromarray(soft).save(masks / "field0.png")
    Image.fromarray(truths["field1"] * np.uint8(255)).save(masks / "field1.png")
    report = evaluate(model, images, masks, mpp=0.5, device="cpu", foreground=True)
    assert np.unique(soft).size > 2
    for one, other in zip(report.images, sharp.images, strict=True):
        np.testing.assert_array_equal(one.matrix, other.matrix)
        assert one.instances[1] == other.instances[1]


def test_true_objects_of_a_folder(tmp_path, model, folders, caplog):
    images, masks, truths, _ = folders
    objects = tmp_path / "objects"
    objects.mkdir()
    for name, truth in truths.items():
        Image.fromarray(truth.astype(np.uint16) * 700).save(objects / f"{name}.png")
    report = evaluate(model, images, masks, mpp=0.5, device="cpu", truth_objects=objects)
    assert [score.instances[1].truth for score in report.images] == [1, 1, 1]
    assert "none of 3 masks holds more than one number" in caplog.text
    soft = truths["field1"] * np.uint8(255)
    soft[20:, 20:] //= 2
    soft[20::2, 20:] //= 2
    Image.fromarray(soft).save(objects / "field1.png")
    with pytest.raises(InputError, match=r"field1\.png: has soft edges"):
        evaluate(model, images, masks, mpp=0.5, device="cpu", truth_objects=objects)
    Image.fromarray(np.ones((5, 7), np.uint8)).save(objects / "field1.png")
    with pytest.raises(InputError, match=r"field1\.png: 7 x 5"):
        evaluate(model, images, masks, mpp=0.5, device="cpu", truth_objects=objects)


def test_options_of_objects_are_looked_at_first(model, folders):
    images, masks, *_ = folders
    for options in (ObjectOptions(min_area=-1), ObjectOptions(True, seed_distance=1e6)):
        with pytest.raises(InputError, match="must be"):
            evaluate(model, images, masks, mpp=0.5, device="cpu", objects=options)


def test_a_model_that_tells_cores_finds_the_objects_that_touch(tmp_path):
    class Cells(nn.Module):
        """Class 1 where green is dark, in tiles of 16 pixels at least; cores where red is."""

        size_multiple = 16

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(20.0))

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            assert x.shape[2] % 16 == 0 and x.shape[3] % 16 == 0
            red, green = self.scale * x[:, :1], self.scale * x[:, 1:2]
            return torch.cat((green, -green, red, -red), dim=1)

    named = ("background", "nucleus"), ((0, 0, 0), (255, 0, 0))
    info = ModelInfo(*named, 0.5, 64, "minus_one_one", instances=True, size_multiple=16)
    save_model(Cells(), info, tmp_path / "model.ts")
    numbers = np.zeros((70, 130), np.uint8)
    numbers[10:30, 10:30], numbers[10:30, 30:50] = 1, 2
    numbers[40:60, 70:90], numbers[40:60, 90:110] = 3, 4
    pixels = np.where(numbers[..., None], (190, 40, 130), (225, 160, 200)).astype(np.uint8)
    for y, x in ((10, 10), (10, 30), (40, 70), (40, 90)):
        pixels[y + 5 : y + 15, x + 5 : x + 15, 0] = 60
    for folder, content in (("images", pixels), ("masks", numbers)):
        (tmp_path / folder).mkdir()
        Image.fromarray(content).save(tmp_path / folder / "a.png")
    folders = tmp_path / "images", tmp_path / "masks"
    found = []
    for options in (ObjectOptions(), ObjectOptions(False), ObjectOptions(None, 1.5)):
        report = evaluate(
            tmp_path / "model.ts", *folders, mpp=0.5, foreground=True, device="cpu", objects=options
        )
        counts = report.images[0].instances[1]
        found.append((report.settings["instances"], counts.truth, counts.predicted))
        if options == ObjectOptions():
            assert counts.pq > 0.99
    assert found == [(True, 4, 4), (False, 4, 2), (True, 4, 2)]
