"""``--init nuclei``: what a run takes from a shipped model, and what it keeps of it."""

import dataclasses
import logging

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from scipy.ndimage import label

from genselfdiff.errors import InputError, ModelError
from genselfdiff.models.model_file import load_model
from genselfdiff.models.registry import create_model
from genselfdiff.models.shipped import catalogue
from genselfdiff.models.shipped.weights import read_weights
from genselfdiff.models.weights import load_initial_weights, with_last_layer_of
from genselfdiff.training.export import export, push, ship_run
from genselfdiff.training.run_folder import RunFolder, read_checkpoint
from genselfdiff.training.runs import finetune, prepared, pretrain
from genselfdiff.training.settings.stage_configs import FinetuneConfig
from gsd.main import main

LAST = "net.final_conv.1.weight"


@pytest.fixture
def config(fields, finetune_config) -> FinetuneConfig:
    """Of a run that starts from "nuclei", on masks that number the discs."""
    for path in (fields / "masks").iterdir():
        with Image.open(path) as file:
            numbers, _ = label(np.asarray(file))
        Image.fromarray(numbers.astype(np.uint8)).save(path)
    return dataclasses.replace(
        finetune_config,
        init="nuclei",
        architecture=None,
        width=None,
        foreground=True,
        steps=1,
    )


def first_weights(config: FinetuneConfig) -> dict[str, torch.Tensor]:
    with prepared(config) as (_, step):
        return {name: value.clone() for name, value in step.network.state_dict().items()}


def test_a_run_starts_from_a_folder_as_from_a_shipped_model(config, ship, tmp_path):
    ship(instances=True)
    push("nuclei", tmp_path / "passed on")
    config = dataclasses.replace(config, instances=True, init=str(tmp_path / "passed on"))
    given = read_weights("nuclei")
    for key, value in first_weights(config).items():
        assert torch.equal(value, given.state[key]), key
    with prepared(config) as (task, _):
        assert task.config.attributions == given.info.attributions
        assert task.config.init == str(tmp_path / "passed on")
        assert task.config.start_share > 0


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nope", "there is no such file or folder"),
        ("empty", r"not a run folder of gsd train \(no config\.toml in it\)"),
        ("notes.txt", "no file of weights"),
    ],
)
def test_what_it_can_start_from_is_said(config, ship, tmp_path, name, told):
    ship()
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    taken = (
        r"--init takes a name of 'gsd models' \(nuclei\), a run folder, a checkpoint in one"
        r" \(\*\.safetensors\), a folder of 'gsd push', .* or none"
    )
    with (
        pytest.raises(ModelError, match=f"{name}: {told}: {taken}"),
        prepared(dataclasses.replace(config, init=str(tmp_path / name))),
    ):
        pass


def test_a_model_file_has_nothing_to_start_from(config, ship, tmp_path):
    ship()
    for name in ("model.ts", "model.PT2"):
        (tmp_path / name).touch()
        config = dataclasses.replace(config, init=str(tmp_path / name))
        with (
            pytest.raises(
                ModelError,
                match=f"{name}: a model file has no weights to train on: .* the folder of the run",
            ),
            prepared(config),
        ):
            pass


def test_a_run_starts_with_all_of_it_where_cores_are_learnt(config, ship, caplog):
    caplog.set_level(logging.INFO, "genselfdiff")
    ship(instances=True)
    given = read_weights("nuclei").state
    for key, value in first_weights(dataclasses.replace(config, instances=True)).items():
        assert torch.equal(value, given[key]), key
    assert "weight tensors loaded; output: classes taken along, cores of objects taken along" in (
        caplog.text
    )
    assert "--instances keeps both" not in caplog.text


def test_without_instances_the_classes_are_taken_and_the_rest_is_said(config, ship, caplog):
    caplog.set_level(logging.INFO, "genselfdiff")
    ship(instances=True)
    assert torch.equal(first_weights(config)[LAST], read_weights("nuclei").state[LAST][:2])
    assert "output: classes taken along" in caplog.text
    assert "nuclei tells touching objects apart" in caplog.text
    assert "--instances keeps both" in caplog.text


def test_cores_are_learnt_afresh_from_a_model_without(config, ship, caplog):
    caplog.set_level(logging.INFO, "genselfdiff")
    ship()
    last = first_weights(dataclasses.replace(config, instances=True))[LAST]
    assert torch.equal(last[:2], read_weights("nuclei").state[LAST])
    assert len(last) == 4
    assert "output: classes taken along, cores of objects fresh" in caplog.text


def test_other_classes_start_afresh(config, ship, caplog):
    caplog.set_level(logging.INFO, "genselfdiff")
    ship(instances=True)
    classes = tuple("abcdefghi")
    config = dataclasses.replace(config, foreground=False, classes=classes)
    own = first_weights(config)
    given = read_weights("nuclei").state
    assert len(own[LAST]) == 9
    for key in own.keys() - {LAST, LAST.replace("weight", "bias")}:
        assert torch.equal(own[key], given[key]), key
    assert "output: classes fresh" in caplog.text


def test_channels_are_taken_along_with_their_rows_of_a_strided_head():
    source, target = (create_model("fast", width=8, out_channels=n) for n in (4, 5))
    state = with_last_layer_of(target, source.state_dict(), 4, {0: 1, 3: 2, 4: 3})
    load_initial_weights(target, state, origin="x", head=True)
    images, t = torch.randn(1, 3, 32, 32), torch.zeros(1, dtype=torch.int64)
    with torch.no_grad():
        theirs, own = source(images, t), target(images, t)
    assert torch.equal(own[:, [0, 3, 4]], theirs[:, [1, 2, 3]])
    assert not torch.equal(own[:, 1], theirs[:, 1])


def test_a_head_of_another_number_of_outputs_is_told():
    source, target = (create_model("tiny", width=8, out_channels=n) for n in (4, 5))
    state = with_last_layer_of(target, source.state_dict(), 3, {0: 0})
    with pytest.raises(ModelError, match=r"x: .*: net\.final_conv\.1\.weight has shape"):
        load_initial_weights(target, state, origin="x", head=True)


def test_images_are_brought_to_its_resolution_and_classes_get_its_names(config, ship, caplog):
    caplog.set_level(logging.INFO, "genselfdiff")
    ship()
    with prepared(dataclasses.replace(config, mpp=0.25)) as (task, _):
        assert task.config.resample_to == 0.5
        assert task.config.classes == ("background", "nucleus")
        assert task.validation.images[0].shape == (48, 48, 3)
    assert "images of 0.25 um/px are resampled to the 0.5 of nuclei" in caplog.text
    with (
        pytest.raises(InputError, match=r"contradicts the 0\.5 .* of nuclei: leave out"),
        prepared(dataclasses.replace(config, resample_to=0.25)),
    ):
        pass


def test_a_run_keeps_the_name_and_goes_on_wherever_gsd_is(tmp_path, config, ship, monkeypatch):
    ship(instances=True)
    config = dataclasses.replace(config, instances=True)
    run = finetune(config, tmp_path / "run", progress=False)
    kept = FinetuneConfig.read(run.config)
    assert (kept.init, kept.architecture, kept.width) == ("nuclei", "tiny", 8)
    moved = tmp_path / "another place"
    catalogue.FOLDER.rename(moved)
    monkeypatch.setattr(catalogue, "FOLDER", moved)
    finetune(dataclasses.replace(kept, steps=2), run.path, resume=True, progress=False)
    assert read_checkpoint(run.latest).state.step == 2

    arguments = ["train", "finetune", "--config", str(run.config), "--out", str(tmp_path / "new")]
    done = CliRunner().invoke(main, [*arguments, "--seed", "1"])
    assert done.exit_code == 0, done.output
    assert FinetuneConfig.read(RunFolder(tmp_path / "new").config).init == "nuclei"


def test_attributions_stay_in_what_is_trained_from_it(tmp_path, config, ship):
    ship()
    finetune(config, tmp_path / "run1", progress=False)
    again = dataclasses.replace(config, init=str(tmp_path / "run1"), resample_to=0.5)
    finetune(again, tmp_path / "run2", progress=False)
    info = export(tmp_path / "run2", tmp_path / "model.ts")
    assert info.attributions == read_weights("nuclei").info.attributions
    assert load_model(tmp_path / "model.ts", "cpu").info == info
    settings = info.training["settings"]
    assert settings["origin"]["origin"]["steps"] == 7, "that of the shipped model"
    assert "attributions" not in settings


def test_a_run_starts_another_with_its_head(tmp_path, config, finetune_config):
    earlier = dataclasses.replace(finetune_config, foreground=True, steps=1)
    run = finetune(earlier, tmp_path / "run", progress=False)
    own = first_weights(
        dataclasses.replace(config, init=str(run.path), resample_to=0.5, instances=True)
    )
    best = read_checkpoint(run.best).weights
    assert torch.equal(own[LAST][:2], best[LAST])
    assert torch.equal(own["net.init_conv.weight"], best["net.init_conv.weight"])


def test_stage_1_does_not_start_from_it(tmp_path, pretrain_config, ship):
    ship()
    config = dataclasses.replace(pretrain_config, init="nuclei", architecture=None, width=None)
    with pytest.raises(InputError, match=r"--init nuclei: .*whose network predicts classes"):
        pretrain(config, tmp_path / "run", progress=False)


def test_the_weights_of_a_run_are_shipped(tmp_path, config, ship):
    ship()
    run = finetune(dataclasses.replace(config, instances=True), tmp_path / "run", progress=False)
    told = ship_run(
        run.path,
        catalogue.weights_file("mine"),
        licence="CC-BY-4.0",
        attributions=["My fields, CC0"],
    )
    weights = read_weights("mine")
    assert weights.info == told
    assert told.licence == "CC-BY-4.0"
    assert told.attributions[0] == "My fields, CC0"
    assert told.attributions[1:] == read_weights("nuclei").info.attributions
    for key, value in read_checkpoint(run.best).weights.items():
        assert torch.equal(weights.state[key], value.half().float()), key
    export(run.path, tmp_path / "model.ts")
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    exported, named = load_model(tmp_path / "model.ts", "cpu"), load_model("mine", "cpu")
    torch.testing.assert_close(named(images), exported(images), rtol=0, atol=0.01)
    with pytest.raises(InputError, match="needs a licence: --licence CC-BY-4"):
        push(run.path, tmp_path / "unlicensed")
    assert push(run.path, tmp_path / "mine", licence="MIT").licence == "MIT"
    passed_on = load_model(tmp_path / "mine", "cpu")
    assert torch.equal(passed_on(images), exported(images)), "nothing is rounded"
    assert 'license: "mit"' in (tmp_path / "mine/README.md").read_text()


@pytest.mark.parametrize(
    ("instances", "asked", "share"),
    [(True, None, 0.5), (True, 0.0, 0.0), (True, 0.2, 0.2), (False, None, 0.0)],
)
def test_half_of_a_model_that_finds_the_same_is_kept(
    config, ship, tmp_path, instances, asked, share
):
    ship(instances=True)
    config = dataclasses.replace(config, instances=instances, start_share=asked)
    with prepared(config) as (_, step):
        assert step.average.start_share == share
        assert bool(step.average.start) == (share > 0)


def test_a_share_of_what_finds_other_things_is_refused(config, ship):
    ship(instances=True)
    for wrong in (
        dataclasses.replace(config, instances=False, start_share=0.5),
        dataclasses.replace(config, init="none", architecture="paper", width=8, start_share=0.5),
    ):
        with (
            pytest.raises(InputError, match=r"--start-share 0\.5: needs all layers"),
            prepared(wrong),
        ):
            pass


def test_a_run_that_keeps_a_share_goes_on_to_the_same_bits(
    config, ship, tmp_path, assert_same_checkpoints
):
    ship(instances=True)
    config = dataclasses.replace(
        config,
        instances=True,
        steps=2,
        warm_up=0.0,
        decay="none",
        validate_every=1,
        keep_every=2,
        log_every=1,
    )
    whole = finetune(config, tmp_path / "whole")
    finetune(dataclasses.replace(config, steps=1), tmp_path / "run")
    longer = dataclasses.replace(FinetuneConfig.read(tmp_path / "run" / "config.toml"), steps=2)
    run = finetune(longer, tmp_path / "run", resume=True)
    latest = read_checkpoint(whole.latest)
    assert_same_checkpoints(latest, read_checkpoint(run.latest))
    assert_same_checkpoints(read_checkpoint(whole.kept(2)), read_checkpoint(run.kept(2)))
    assert torch.equal(latest.start[LAST], read_weights("nuclei").state[LAST])
    mean = latest.average[LAST].lerp(latest.start[LAST], 0.5)
    assert not torch.equal(mean, latest.average[LAST])
    assert torch.equal(read_checkpoint(whole.kept(2)).weights[LAST], mean)
