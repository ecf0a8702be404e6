"""Runs that learn, beside the classes, to tell apart objects that touch."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from genselfdiff.data.labelled.cores import cores_of
from genselfdiff.data.labelled.images import CORE_LABEL, LabelledImages
from genselfdiff.data.labelled.pairs import find_pairs
from genselfdiff.errors import InputError
from genselfdiff.models.model_file import load_model
from genselfdiff.training.export import export
from genselfdiff.training.finetuning import FinetuneTask
from genselfdiff.training.run_folder import RunFolder, read_checkpoint
from genselfdiff.training.runs import finetune
from genselfdiff.training.settings.stage_configs import FinetuneConfig


@pytest.fixture
def numbered(fields):
    """The fields, with numbers for their discs; where two lie over each other they touch."""
    for i in range(5):
        rng = np.random.default_rng(i)
        y, x = np.mgrid[:96, :96]
        numbers = np.zeros((96, 96), np.uint16)
        for number in range(1, 7):
            cy, cx = rng.integers(0, 96, 2)
            numbers[((y - cy) ** 2 + (x - cx) ** 2 < 80) & (numbers == 0)] = number * 100
        Image.fromarray(numbers).save(fields / "masks" / f"patient{i}-a.png")
    return fields


@pytest.fixture
def config(numbered, finetune_config):
    return dataclasses.replace(finetune_config, foreground=True, instances=True)


def test_labels_tell_cores_and_numbers_stay(numbered):
    pairs = find_pairs(numbered / "images", numbered / "masks")
    for scale in (1.0, 0.5):
        images = LabelledImages(pairs, foreground=True, instances=True, scale=scale)
        for labels, numbers in zip(images.labels, images.numbers, strict=True):
            assert numbers.dtype == np.int32
            np.testing.assert_array_equal(numbers != 0, labels != 0)
            np.testing.assert_array_equal(labels == CORE_LABEL, cores_of(numbers))
    assert set(np.unique(images.numbers[0])) <= {0, 100, 200, 300, 400, 500, 600}


def test_ignored_pixels_are_of_no_object(numbered):
    path = numbered / "masks" / "patient0-a.png"
    mask = np.asarray(Image.open(path)).copy()
    mask[:20] = 255
    Image.fromarray(mask).save(path)
    pairs = find_pairs(numbered / "images", numbered / "masks")[:1]
    images = LabelledImages(pairs, foreground=True, instances=True, ignore_label=255)
    assert (images.labels[0][:20] == 255).all()
    assert not images.numbers[0][:20].any()


def test_the_loss_is_that_of_the_classes_and_of_the_cores(tmp_path, config):
    config = dataclasses.replace(
        config.with_network(), classes=("background", "disc"), resample_to=0.5, ignore_label=255
    )
    task = FinetuneTask(dataclasses.replace(config, val=("patient0-a",)), RunFolder(tmp_path / "r"))
    labels = torch.tensor([[[0, 1, 2, 255]]]).expand(1, 8, 4).repeat(1, 1, 2)
    logits = torch.randn(1, 4, 8, 8, requires_grad=True)
    loss = task.loss(lambda x, t: logits, (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), labels), 0)
    classes = torch.tensor([0, 1, 1, 255])[None, None].expand(1, 8, 4).repeat(1, 1, 2)
    cores = torch.tensor([0, 0, 1, 255])[None, None].expand(1, 8, 4).repeat(1, 1, 2)
    expected = task.objective(logits[:, :2], classes) + task.objective(logits[:, 2:], cores)
    torch.testing.assert_close(loss, expected)


def test_a_run_finds_discs_that_touch(tmp_path, config):
    config = dataclasses.replace(
        config, steps=80, validate_every=40, classes=("background", "disc"), val="patient0,patient1"
    )
    run = finetune(config, tmp_path / "run", progress=False)
    lines = map(json.loads, run.metrics.read_text().splitlines())
    validated = [line["validation"] for line in lines if "validation" in line]
    best = read_checkpoint(run.best).state.best
    assert best == max(figures["PQ"] for figures in validated)
    assert best > 0.5
    assert validated[-1]["Dice disc"] > 0.7
    info = export(run.path, tmp_path / "model.ts")
    assert (info.instances, info.channels, info.size_multiple) == (True, 3, 8)
    assert info.training["validation_pq"] == best
    assert "validation_dice" not in info.training
    model = load_model(tmp_path / "model.ts", "cpu")
    assert model.info == info
    image = np.array(Image.open(tmp_path / "images" / "patient0-a.png"))
    given = model(torch.from_numpy(image).permute(2, 0, 1)[None])
    assert given.shape == (1, 3, 96, 96)
    torch.testing.assert_close(given[:, :2].sum(1), torch.ones(1, 96, 96))
    assert given[0, 2].min() >= 0
    assert given[0, 2].max() <= 1
    assert given[0, 2].max() > 0.5


def test_masks_without_numbers_are_refused(tmp_path, finetune_config):
    config = dataclasses.replace(finetune_config, foreground=True, instances=True)
    with pytest.raises(InputError, match="numbers of objects"):
        finetune(config, tmp_path / "run", progress=False)


@pytest.mark.parametrize("label", [1, CORE_LABEL])
def test_an_ignored_label_is_none_of_the_networks_own(label):
    with pytest.raises(InputError, match="from 3 on"):
        FinetuneConfig(instances=True, foreground=True, ignore_label=label)


def test_a_strided_network_needs_tiles_that_fit_it(config):
    with pytest.raises(InputError, match="multiple of 16 with architecture fast"):
        dataclasses.replace(config, architecture="fast", tile_size=40, width=8).with_network()
