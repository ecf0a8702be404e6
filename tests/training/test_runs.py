import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from genselfdiff.choices import LOSSES
from genselfdiff.diffusion import NoiseSchedule
from genselfdiff.errors import InputError, ModelError, OutputError
from genselfdiff.evaluation.scores import EvaluationReport
from genselfdiff.evaluation.scoring import Prediction, Truth, score_image
from genselfdiff.models.model_file import load_model
from genselfdiff.training import run_folder, runs
from genselfdiff.training.curves import draw_curves
from genselfdiff.training.export import export
from genselfdiff.training.loop.distributed import World
from genselfdiff.training.loop.health import LossWatch
from genselfdiff.training.loop.records import restore
from genselfdiff.training.loop.step import TrainingStep
from genselfdiff.training.run_folder import RunFolder, read_checkpoint, resumable_tensors
from genselfdiff.training.runs import finetune, prepared, pretrain
from genselfdiff.training.sample import NoisedTiles, Sampling, restore_tiles, sample_run
from genselfdiff.training.settings.run_config import RunConfig
from genselfdiff.training.settings.stage_configs import FinetuneConfig, PretrainConfig
from gsd.main import main


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


def test_existing_folder_is_left_alone(tmp_path, pretrain_config):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"choose another --out$"):
        pretrain(pretrain_config, tmp_path / "run", progress=False)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]
    pretrain(pretrain_config, tmp_path / "other", progress=False)
    with pytest.raises(OutputError, match="choose another --out, or --resume"):
        pretrain(pretrain_config, tmp_path / "other", progress=False)


def test_a_start_that_fails_leaves_no_folder(tmp_path, pretrain_config, finetune_config):
    nowhere = {"device": "cuda:9"}
    for run, config in ((pretrain, pretrain_config), (finetune, finetune_config)):
        with pytest.raises(InputError, match="use --device cpu"):
            run(dataclasses.replace(config, **nowhere), tmp_path / "run")
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["config.toml", "best.safetensors", "samples/step_1.png"])
def test_a_file_of_a_run_is_no_output(tmp_path, name):
    (tmp_path / "samples").mkdir()
    (tmp_path / name).write_text("of the run")
    with pytest.raises(OutputError, match="is an input of this run"):
        export(tmp_path, tmp_path / name, overwrite=True)
    picture = tmp_path / "linked.png"
    os.link(tmp_path / name, picture)
    with pytest.raises(OutputError, match="is an input of this run"):
        sample_run(tmp_path, picture, Sampling(1), overwrite=True)
    with pytest.raises(OutputError, match="is an input of this run"):
        restore_tiles(tmp_path, picture, NoisedTiles("a.png", t=3), Sampling(1), overwrite=True)
    for option in ("-o", "--csv"):
        arguments = ["compare", str(tmp_path), "b", option, str(tmp_path / name), "--overwrite"]
        assert "is an input of this run" in CliRunner().invoke(main, arguments).output
    assert (tmp_path / name).read_text() == "of the run"


@pytest.mark.parametrize("name", [".lock", ".gsd-unfinished"])
def test_links_in_a_run_folder_lead_nowhere(tmp_path, pretrain_config, name):
    thesis = tmp_path / "mine" / "thesis.txt"
    for folder in (thesis.parent, tmp_path / "run"):
        folder.mkdir()
    thesis.write_text("precious")
    (tmp_path / "run" / name).symlink_to(thesis if name == ".lock" else thesis.parent)
    with pytest.raises(OutputError, match=r"run/\.lock: is a link|symbolic link"):
        pretrain(pretrain_config, tmp_path / "run", progress=False)
    (tmp_path / "run" / "metrics.jsonl").symlink_to(thesis)
    with pytest.raises(OutputError, match=r"run/metrics\.jsonl: is a link"):
        RunFolder(tmp_path / "run").append_metrics({"step": 1})
    assert thesis.read_text() == "precious"
    assert len(list(thesis.parent.iterdir())) == 1


def test_hidden_files_of_the_users_stay(tmp_path, pretrain_config):
    names = [".env.local", ".tmpbackup", ".gitignore", ".a.b", ".notes.txt.gsd-old.txt"]
    (tmp_path / "run").mkdir()
    for name in names:
        (tmp_path / "run" / name).write_text("mine")
    config = dataclasses.replace(pretrain_config, steps=1)
    pretrain(config, tmp_path / "run", progress=False)
    pretrain(config, tmp_path / "run", resume=True, progress=False)
    assert all((tmp_path / "run" / name).read_text() == "mine" for name in names)


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    run = RunFolder(tmp_path)
    full = Path("/dev/full")
    monkeypatch.setattr(run_folder, "open_own", lambda path, create: full.open("r+b", 0))
    with pytest.raises(OutputError, match=r"metrics\.jsonl: cannot be written: No space left"):
        run.append_metrics({"step": 1})


def test_damaged_checkpoints_are_named(tmp_path, pretrain_config):
    run = pretrain(pretrain_config, tmp_path / "run", progress=False)
    content = run.latest.read_bytes()
    run.latest.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match=r"latest\.safetensors: damaged"):
        pretrain(pretrain_config, run.path, resume=True, progress=False)
    with pytest.raises(ModelError, match="there is no such folder: give a run folder"):
        export(tmp_path / "nowhere", tmp_path / "model.ts")
    with pytest.raises(
        ModelError, match=r"run: a run of `gsd train pretrain`, not of `gsd train finetune`"
    ):
        export(run.path, tmp_path / "model.ts")
    config = run.config.read_text()
    run.config.write_text(config.replace("width = 8", "width = 16"))
    with pytest.raises(ModelError, match=r"best\.safetensors: .* has shape .* instead of"):
        sample_run(run.path, tmp_path / "grid.png", Sampling(1))
    for old, new, told in (
        ("seed = 0", "seed = 0\ncolour = 1", "unknown setting 'colour'"),
        ("steps = 8", 'steps = "many"', "damaged: steps must be a whole number, not str"),
        ("steps = 8", "steps = 8.5", "damaged: steps must be a whole number, not float"),
        ("steps = 8", "steps = true", "damaged: steps must be a whole number, not bool"),
        ("steps = 8", "steps = 2024-01-01", "damaged: steps must be a whole number, not date"),
        ("steps = 8", "steps = 0", "damaged: steps must be at least 1"),
        ("steps = 8", f"steps = {10**400}", "damaged: steps is larger than"),
        ("seed = 0", f"seed = {2**63 - 1}", "damaged: seed is larger than"),
        ("ema = 0.999", f"ema = {10**400}", "damaged: ema is larger than"),
        ("ema = 0.999", "ema = nan", "damaged: ema must be a finite number"),
        ("mpp = 0.5", "mpp = [0.5]", "damaged: mpp must be a number, not tuple"),
        ("data = [", "data = [7, ", "damaged: data must be a list, not tuple"),
        ("steps = 8", "steps = ", "is not TOML: .*: restore it"),
        ("steps = 8", "steps = " + "[" * 5000, "is nested too deeply to be read: restore it"),
        ('stage = "pretrain"', "stage = {}", "not the settings of a gsd run"),
        ('stage = "pretrain"', "", "not the settings of a gsd run"),
    ):
        assert old in config
        run.config.write_text(config.replace(old, new))
        with pytest.raises(ModelError, match=rf"config\.toml: {told}"):
            PretrainConfig.read(run.config)


@pytest.mark.parametrize(
    "about",
    [
        "[" * 100_000,
        "[]",
        '"format"',
        '{"format": "2"}',
        '{"format": "2", "step": "1"}',
        '{"format": "2", "step": -1}',
        '{"format": "2", "step": true}',
        '{"format": "2", "step": 1, "best": "high"}',
        '{"format": "2", "step": 1, "losses": ["low"]}',
        '{"format": "2", "step": 1, "norms": 3}',
        '{"format": "2", "step": NaN}',
        f'{{"format": "2", "step": {10**400}}}',
        '{"format": "2", "step": 1, "best": NaN}',
        '{"format": "2", "step": 1, "losses": [1.0, Infinity]}',
        '{"format": "2", "step": 1, "first_loss": 1e400}',
        '{"format": "2", "step": 1, "made_with": 3}',
        '{"format": "2", "step": 1, "colour": "red"}',
    ],
)
def test_what_a_checkpoint_tells_is_checked(tmp_path, about):
    save_file({"network.a": torch.zeros(1)}, tmp_path / "a.safetensors", {"gsd": about})
    with pytest.raises(ModelError, match=r"a\.safetensors: damaged"):
        read_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_numbers_that_we_do_not_write_are_told(tmp_path, dtype):
    path = tmp_path / "a.safetensors"
    about = {"gsd": '{"format": "2", "step": 1}'}
    save_file({"network.a": torch.zeros(1).to(dtype)}, path, about)
    with pytest.raises(ModelError, match=r"a\.safetensors: damaged"):
        read_checkpoint(path)


def shortened(tensors, name):
    tensors[name] = tensors[name].flatten()[1:].clone()


def spoilt(tensors, name):
    tensors[name].view(-1)[-1] = float("nan")


def whole_numbers(tensors, name):
    tensors[name] = tensors[name].to(torch.int64)


def left_out(tensors, name):
    del tensors[name]


@pytest.mark.parametrize("change", [shortened, spoilt, whole_numbers, left_out])
@pytest.mark.parametrize("begin", ["network.", "average.", "optimiser.3.exp_avg"])
def test_tensors_that_are_not_of_the_run_are_told(tmp_path, begin, change):
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Conv2d(5, 2, 3))
    step = TrainingStep(None, network, RunConfig(), torch.device("cpu"), World())
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    step.optimiser.step()
    run = RunFolder(tmp_path)
    tensors = resumable_tensors(network, step.average, step.optimiser)
    tensors = {name: value.clone() for name, value in tensors.items()}
    about = {"gsd": '{"format": "2", "step": 1}'}
    save_file(tensors, run.latest, about)
    watch = LossWatch("run", "{}".format, 1.0)
    assert restore(step, watch, run) == (1, None)
    change(tensors, next(name for name in tensors if name.startswith(begin)))
    save_file(tensors, run.latest, about)
    with pytest.raises(ModelError, match=r"latest\.safetensors: "):
        restore(step, watch, run)


@pytest.mark.parametrize(
    "line",
    [
        *('{"step": ', "[1]", "[" * 100_000, '{"loss": 1.0}', '{"step": 2, "loss": "small"}'),
        *('{"step": 2, "validation": 3}', '{"step": 2, "validation": {"dice": 0.5}}'),
        *("\xff", '{"step": 1e400}', '{"step": 2, "data": 5}'),
        '{"step": 2, "validation": {"score": 0.5}, "images": {"a": null}}',
    ],
)
def test_metrics_end_where_they_are_damaged(tmp_path, line):
    run = RunFolder(tmp_path)
    run.append_metrics({"step": 1})
    with run.metrics.open("a", encoding="latin-1") as file:
        file.write(f'{line}\n{{"step": 3}}\n')
    assert run.read_metrics() == [{"step": 1}]
    run.rewind_metrics(5)
    assert run.metrics.read_text() == '{"step": 1}\n'


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


def test_a_run_that_came_and_went_meanwhile_is_left_alone(tmp_path, finetune_config, monkeypatch):
    run = RunFolder(tmp_path / "run")

    def start(*arguments, **options):
        run.path.mkdir()
        run.latest.write_bytes(b"of the other run")
        return prepared_start(*arguments, **options)

    prepared_start = runs._start
    monkeypatch.setattr(runs, "_start", start)
    with pytest.raises(OutputError, match="exists already"):
        finetune(finetune_config, run.path)
    assert run.latest.read_bytes() == b"of the other run"


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
