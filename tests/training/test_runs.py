import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from genselfdiff.choices import LOSSES
from genselfdiff.diffusion import NoiseSchedule
from genselfdiff.errors import InputError, OutputError
from genselfdiff.evaluation.scores import EvaluationReport
from genselfdiff.evaluation.scoring import Prediction, Truth, score_image
from genselfdiff.models.model_file import load_model
from genselfdiff.training.curves import draw_curves
from genselfdiff.training.export import export
from genselfdiff.training.run_folder import RunFolder, read_checkpoint
from genselfdiff.training.runs import finetune, prepared, pretrain
from genselfdiff.training.sample import NoisedTiles, Sampling, restore_tiles, sample_run
from genselfdiff.training.settings.stage_configs import FinetuneConfig


def test_pretraining_lowers_the_validation_loss(tmp_path, pretrain_config):
    config = dataclasses.replace(
        pretrain_config,
        steps=60,
        validate_every=10,
        sample_every=60,
        timesteps=1000,
        learning_rate=1e-2,
    )
    run = pretrain(config, tmp_path / "run", progress=False)
    losses = [r["validation"]["loss"] for r in run.read_metrics() if "validation" in r]
    predicting_nothing = NoiseSchedule.create("quadratic").p2_weights().mean().item()
    assert min(losses) < 0.9 * predicting_nothing
    assert read_checkpoint(run.best).state.best == min(losses)
    assert run.curves.exists()
    assert [path.name for path in run.samples.iterdir()] == ["step_0000060.png"]


def test_sampling_a_run_leaves_a_grid(tmp_path, pretrain_config):
    pretrain(pretrain_config, tmp_path / "run", progress=False)
    sample_run(tmp_path / "run", tmp_path / "grid.png", Sampling(5, steps=3))
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size == (3 * 32, 2 * 32)
    for wrong, told in (
        ({"count": 0}, "--count 0 must be at least 1"),
        ({"seed": -1}, "--seed -1 must be at least 0"),
        ({"seed": 10**400}, "--seed is larger than"),
    ):
        with pytest.raises(InputError, match=told):
            Sampling(**({"count": 1} | wrong))
    with pytest.raises(InputError, match="multiple of 8 for this network"):
        sample_run(tmp_path / "run", tmp_path / "other.png", Sampling(1), size=12)
    with pytest.raises(InputError, match="use 1 to 50"):
        sample_run(tmp_path / "run", tmp_path / "other.png", Sampling(1, steps=51))
    with pytest.raises(InputError, match="PNG"):
        sample_run(tmp_path / "run", tmp_path / "grid.jpg", Sampling(1))
    with pytest.raises(OutputError, match="--overwrite"):
        sample_run(tmp_path / "run", tmp_path / "grid.png", Sampling(1, steps=3))


def test_sizes_that_a_network_of_less_resolution_does_not_take(tmp_path, pretrain_config):
    config = dataclasses.replace(pretrain_config, architecture="fastest", steps=1)
    pretrain(config, tmp_path / "run", progress=False)
    with pytest.raises(InputError, match="--size 40 must be a positive multiple of 32"):
        sample_run(tmp_path / "run", tmp_path / "grid.png", Sampling(1, steps=2), size=40)
    sample_run(tmp_path / "run", tmp_path / "grid.png", Sampling(1, steps=2), size=64)


def test_tiles_are_noised_and_restored(tmp_path, fields, pretrain_config):
    config = dataclasses.replace(
        pretrain_config, steps=150, validate_every=150, sample_every=0, learning_rate=1e-2
    )
    run = pretrain(config, tmp_path / "run", progress=False)
    image = fields / "images" / "patient0-a.png"
    for ancestral in (False, True):
        picture = tmp_path / f"restored{ancestral}.png"
        sampling = Sampling(2, ancestral=ancestral)
        found = restore_tiles(run.path, picture, NoisedTiles(image, t=45), sampling)
        assert len(found.restored) == 2
        if not ancestral:  # which draws new noise, that so short a training cannot take away
            for noised, restored in zip(found.noised, found.restored, strict=True):
                assert restored > noised + 0.5, "in dB"
        with Image.open(picture) as grid:
            assert grid.size == (3 * 32, 2 * 32)
            pixels = np.asarray(grid)
    tile = pixels[:32, :32]
    with Image.open(image) as file:
        whole = np.lib.stride_tricks.sliding_window_view(np.asarray(file), (32, 32), axis=(0, 1))
    assert (np.abs(whole.transpose(0, 1, 3, 4, 2) - tile.astype(int)).max((2, 3, 4)) <= 1).any()
    unharmed = restore_tiles(run.path, tmp_path / "zero.png", NoisedTiles(image, t=0), Sampling(1))
    assert unharmed.noised[0] > 30
    with pytest.raises(InputError, match="--t 50: the time steps of the run are 0 to 49"):
        restore_tiles(run.path, tmp_path / "other.png", NoisedTiles(image, t=50), Sampling(1))


def test_journey_from_tiles_to_a_model_that_finds_the_discs(
    tmp_path, pretrain_config, finetune_config
):
    pretrain(pretrain_config, tmp_path / "run1", progress=False)
    config = dataclasses.replace(
        finetune_config,
        init=str(tmp_path / "run1"),
        steps=60,
        validate_every=20,
        classes=("background", "disc"),
    )
    run = finetune(config, tmp_path / "run2", progress=False)
    best = read_checkpoint(run.best).state.best
    assert best is not None
    assert best > 0.8
    info = export(tmp_path / "run2", tmp_path / "model.ts", licence="CC0-1.0")
    assert info.classes == ("background", "disc")
    assert info.mpp == 0.5
    assert info.training["validation_dice"] == best
    assert info.training["initial_weights"] == "run1"
    assert info.training["settings"]["origin"]["steps"] == pretrain_config.steps
    assert str(tmp_path) not in info.to_json(), "names of folders are nobody's business"
    assert load_model(tmp_path / "model.ts", "cpu").info == info
    with pytest.raises(OutputError, match="--overwrite"):
        export(tmp_path / "run2", tmp_path / "model.ts")


def test_weights_of_stage_1_start_stage_2(tmp_path, pretrain_config, finetune_config):
    pretrain(pretrain_config, tmp_path / "run1", progress=False)
    config = dataclasses.replace(
        finetune_config, init=str(tmp_path / "run1"), steps=1, learning_rate=1e-12
    )
    finetune(config, tmp_path / "run2", progress=False)
    before = read_checkpoint(RunFolder(tmp_path / "run1").best).weights
    after = read_checkpoint(RunFolder(tmp_path / "run2").latest).weights
    for key, value in before.items():
        if not key.startswith("net.final_conv."):
            torch.testing.assert_close(after[key], value, rtol=1e-6, atol=1e-8)


def test_the_encoder_alone_starts_stage_2(tmp_path, pretrain_config, finetune_config):
    pretrain(pretrain_config, tmp_path / "run1", progress=False)
    settings = dict(init=str(tmp_path / "run1"), init_layers="encoder")
    config = dataclasses.replace(finetune_config, **settings)
    with prepared(config) as (_, step):
        taken = step.network.state_dict()
    with prepared(dataclasses.replace(finetune_config, init="none")) as (_, step):
        fresh = step.network.state_dict()
    before = read_checkpoint(RunFolder(tmp_path / "run1").best).weights
    for key, value in taken.items():
        decoder = key.startswith(("net.ups.", "net.final_conv."))
        assert torch.equal(value, (fresh if decoder else before)[key]), key
    with pytest.raises(InputError, match="--init-layers encoder: needs an --init"):
        finetune(dataclasses.replace(config, init="none"), tmp_path / "run2")
    with pytest.raises(InputError, match="needs all layers"):
        finetune(dataclasses.replace(config, start_share=0.5), tmp_path / "run2")


def test_stage_2_reads_colours_as_the_stage_2_that_it_starts_from(tmp_path, finetune_config):
    config = dataclasses.replace(finetune_config, input_scaling="zero_one", steps=1)
    finetune(config, tmp_path / "run1", progress=False)
    again = dataclasses.replace(config, init=str(tmp_path / "run1"), input_scaling="minus_one_one")
    with pytest.raises(InputError, match="has learnt with --input-scaling zero_one: give that"):
        finetune(again, tmp_path / "run2", progress=False)
    finetune(dataclasses.replace(again, input_scaling="zero_one"), tmp_path / "run2")


def test_stage_1_starts_from_an_earlier_run_head_and_all(tmp_path, pretrain_config):
    pretrain(pretrain_config, tmp_path / "run1", progress=False)
    config = dataclasses.replace(
        pretrain_config, init=str(tmp_path / "run1"), steps=1, learning_rate=1e-12
    )
    again = pretrain(config, tmp_path / "run2", progress=False)
    before = read_checkpoint(RunFolder(tmp_path / "run1").best).weights
    for key, value in read_checkpoint(again.latest).weights.items():
        torch.testing.assert_close(value, before[key], rtol=1e-6, atol=1e-8)
    coarser = dataclasses.replace(config, mpp=1.0)
    with pytest.raises(InputError, match=r"1 um/px contradicts .*run1: pretrain at --mpp 0\.5"):
        pretrain(coarser, tmp_path / "run3", progress=False)


def test_stage_1_does_not_start_from_stage_2(tmp_path, pretrain_config, finetune_config):
    finetune(finetune_config, tmp_path / "run2", progress=False)
    config = dataclasses.replace(pretrain_config, init=str(tmp_path / "run2"))
    with pytest.raises(InputError, match="a run of stage 2, whose network predicts classes"):
        pretrain(config, tmp_path / "run3", progress=False)


def test_the_best_and_the_worst_field_are_drawn(tmp_path, finetune_config):
    config = dataclasses.replace(finetune_config, val="patient0,patient1,patient2", steps=30)
    run = finetune(config, tmp_path / "run", progress=False)
    best = read_checkpoint(run.best).state.step
    (scores,) = (r["images"] for r in run.read_metrics() if r["step"] == best and "images" in r)
    worst, top = min(scores, key=scores.get), max(scores, key=scores.get)
    drawn = {path.name for path in run.fields.glob(f"step_{best:07d}_*")}
    assert drawn == {f"step_{best:07d}_worst_{worst}.png", f"step_{best:07d}_best_{top}.png"}


def test_of_one_field_there_is_one_picture(tmp_path, finetune_config):
    run = finetune(dataclasses.replace(finetune_config, steps=30), tmp_path / "run", progress=False)
    assert {path.name.split("_", 2)[2] for path in run.fields.iterdir()} == {"best_patient0-a.png"}


def test_images_smaller_than_a_tile_are_told(finetune_config, caplog):
    config = dataclasses.replace(finetune_config, tile_size=104, train_images=1)
    with prepared(config) as (task, _):
        (stem,) = task.training.stems
    assert f"smaller than a tile of 104 pixels, and reflected to fill it: {stem}" in caplog.text


def test_resolution_that_contradicts_stage_1_is_refused(tmp_path, pretrain_config, finetune_config):
    pretrain(pretrain_config, tmp_path / "run1", progress=False)
    init = str(tmp_path / "run1")
    with pytest.raises(InputError, match=r"0\.25 um/px contradicts .* add --resample-to 0\.5"):
        finetune(dataclasses.replace(finetune_config, init=init, mpp=0.25), tmp_path / "run2")
    assert not (tmp_path / "run2").exists()
    resampled = dataclasses.replace(finetune_config, init=init, mpp=0.25, resample_to=0.5)
    run = finetune(resampled, tmp_path / "run2", progress=False)
    assert FinetuneConfig.read(run.config).resample_to == 0.5


def test_a_resolution_that_is_nearly_that_of_stage_1_is_brought_to_it(
    tmp_path, pretrain_config, finetune_config
):
    pretrain(pretrain_config, tmp_path / "run1", progress=False)
    seen = []
    for mpp in (0.46, 0.495):
        config = dataclasses.replace(finetune_config, init=str(tmp_path / "run1"), mpp=mpp)
        with prepared(config) as (task, _):
            assert task.config.resample_to == 0.5
            seen.append(task.validation.images[0].shape)
    assert seen == [(88, 88, 3), (96, 96, 3)]


def test_architecture_that_contradicts_stage_1_is_refused(
    tmp_path, pretrain_config, finetune_config
):
    pretrain(pretrain_config, tmp_path / "run1", progress=False)
    for setting in ({"architecture": "paper"}, {"width": 64}):
        config = dataclasses.replace(finetune_config, init=str(tmp_path / "run1"), **setting)
        with pytest.raises(InputError, match=r"contradicts .*run1, which has .*leave it out"):
            finetune(config, tmp_path / "run2")
    assert not (tmp_path / "run2").exists()


class Threshold(nn.Module):
    """Calls dark pixels discs, and very bright ones rare."""

    def __init__(self):
        super().__init__()
        self.bright = nn.Parameter(torch.tensor(0.6))

    def forward(self, x, t):
        red = x[:, :1]
        return torch.cat([torch.zeros_like(red), -red, 10 * (red - self.bright)], 1)


def test_validation_counts_classes_as_the_evaluation_does(
    tmp_path, fields, finetune_config, caplog
):
    mask = np.zeros((96, 96), np.uint8)
    mask[:20] = 2
    Image.fromarray(mask).save(fields / "masks" / "patient0-a.png")
    Image.new("RGB", (96, 96), (200, 200, 200)).save(fields / "images" / "patient1-a.png")
    Image.new("L", (96, 96)).save(fields / "masks" / "patient1-a.png")
    val = "patient0,patient1,patient2"
    config = dataclasses.replace(finetune_config, classes=("background", "disc", "rare"), val=val)
    network = Threshold()
    with prepared(config) as (task, _), torch.no_grad():
        figures, by_image = task.summarise(task.validate(network, 0, 1))
        # The same with the whole evaluation, from the same predictions.
        images = tuple(
            score_image(
                stem, Truth(labels), Prediction(task._predict(network, number)[0]), 3
            ).scores
            for number, (stem, labels) in enumerate(
                zip(task.validation.stems, task.validation.labels, strict=True)
            )
        )
    assert "no training image holds: rare" in caplog.text
    report = EvaluationReport(tmp_path, config.classes, {}, images)
    dice = {c: s.mean for c, s in zip(config.classes, report.by_class["dice"], strict=True)}
    expected = {f"Dice {name}": value for name, value in dice.items()}
    assert figures == pytest.approx({"score": (dice["disc"] + dice["rare"]) / 2, **expected})
    assert report.by_class["dice"][2].images == 2, "nowhere in patient1, only predicted in patient2"
    assert images[2].by_class["dice"][2] == 0
    expected = {i.name: i.mean_dice for i in images if not np.isnan(i.mean_dice)}
    assert by_image == pytest.approx(expected)


def test_ignored_pixels_neither_teach_nor_count(tmp_path, fields, finetune_config):
    for path in (fields / "masks").iterdir():
        with Image.open(path) as file:
            mask = np.array(file)
        mask[:48] = 200
        Image.fromarray(mask).save(path)
    with pytest.raises(InputError, match="200 look like instance numbers"):
        finetune(finetune_config, tmp_path / "run")
    config = dataclasses.replace(finetune_config, ignore_label=200)
    run = finetune(config, tmp_path / "run", progress=False)
    assert FinetuneConfig.read(run.config).classes == ("background", "foreground")
    with pytest.raises(InputError, match="ignore_label 1 is class 'foreground'"):
        dataclasses.replace(finetune_config, ignore_label=1, classes=("background", "foreground"))


def test_the_loss_that_is_asked_for_teaches(tmp_path, finetune_config):
    lines = {}
    for loss in LOSSES:
        config = dataclasses.replace(finetune_config, loss=loss, steps=1, log_every=1)
        run = finetune(config, tmp_path / loss, progress=False)
        lines[loss] = next(r["loss"] for r in run.read_metrics() if "loss" in r)
    parts = lines["structural_similarity"] + lines["focal"]
    assert lines["multi"] == pytest.approx(parts, rel=1e-4)
    assert lines["cross_entropy"] > lines["focal"] > 0
    with pytest.raises(InputError, match="--loss focal"):
        finetune(dataclasses.replace(config, loss="focal", sync_loss=True), tmp_path / "run")


def test_an_absurd_enlargement_is_refused(tmp_path, finetune_config):
    for mpp, resample_to in ((25.0, 0.5), (0.5, 0.05)):
        config = dataclasses.replace(finetune_config, mpp=mpp, resample_to=resample_to)
        with pytest.raises(InputError, match=r"times to reach .*check --mpp"):
            finetune(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_unknown_resolution_is_asked_for(tmp_path, finetune_config, pretrain_config):
    with pytest.raises(InputError, match=r"patient0-a\.png: .*--mpp"):
        finetune(dataclasses.replace(finetune_config, mpp=None), tmp_path / "run")
    with pytest.raises(InputError, match="--image-mpp"):
        pretrain(dataclasses.replace(pretrain_config, image_mpp=None), tmp_path / "run")
    with pytest.raises(InputError, match="--mpp"):
        pretrain(dataclasses.replace(pretrain_config, mpp=None), tmp_path / "run")


def test_curves_of_a_class_that_is_found_now_and_then(tmp_path):
    run = RunFolder(tmp_path)
    for step, figures in enumerate(({"Dice a": 0.1}, {"Dice b": 0.3}, {"Dice a": 0.2})):
        run.append_metrics({"step": step, "validation": {"score": 0.1, **figures}})
    draw_curves(run)
    with Image.open(run.curves) as picture:
        assert picture.size == (700, 700), "losses and scores have axes of their own"


def test_curves_of_losses_alone(tmp_path):
    run = RunFolder(tmp_path)
    run.append_metrics({"step": 1, "loss": 0.5})
    run.append_metrics({"step": 1, "validation": {"score": 0.1, "loss": 0.1}})
    draw_curves(run)
    with Image.open(run.curves) as picture:
        assert picture.size == (700, 400)


def test_the_folds_of_a_run_are_kept(fields, finetune_config):
    stems = {path.stem for path in (fields / "images").iterdir()}
    patients = {stem.partition("-")[0] for stem in stems}
    config = dataclasses.replace(finetune_config, val=None, group="patient.", steps=1)
    held_out = []
    for k in range(1, len(patients) + 1):
        with prepared(dataclasses.replace(config, fold=(k, len(patients)))) as (task, _):
            complete = task.config
        assert complete.fold == (k, len(patients))
        assert len({stem.partition("-")[0] for stem in complete.val}) == 1
        held_out += complete.val
        with prepared(complete) as (again, _):
            assert again.config == complete
    assert sorted(held_out) == sorted(stems)


def test_a_process_that_loads_data_keeps_no_folder_when_the_run_has_ended(tmp_path: Path) -> None:
    (ended, end), (begun, begin) = os.pipe(), os.pipe()
    with RunFolder(tmp_path / "run").opened():
        child = os.fork()
        if not child:
            os.close(end)
            os.write(begin, b"!")
            os.read(ended, 1)  # until the test is through
            os._exit(0)
        os.read(begun, 1)
    try:
        with RunFolder(tmp_path / "run").opened():
            pass
    finally:
        os.close(end)
        os.waitpid(child, 0)
        for stream in (ended, begun, begin):
            os.close(stream)
