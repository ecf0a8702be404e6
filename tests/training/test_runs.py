import dataclasses
import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image

import genselfdiff.training.loop as loop
from genselfdiff.diffusion import NoiseSchedule
from genselfdiff.errors import InputError, ModelError, OutputError, TrainingError
from genselfdiff.inference.model_file import load_model
from genselfdiff.training import FinetuneConfig, PretrainConfig, export_run, finetune, pretrain
from genselfdiff.training.finetuning import FinetuneTask
from genselfdiff.training.run_folder import RunFolder, read_checkpoint
from genselfdiff.training.sample import sample_run


class Killed(BaseException):
    """What no handler expects."""


def killed_at(monkeypatch, step):
    """Let the process die at the start of optimiser step ``step``, as if by kill -9."""
    rate = loop._learning_rate

    def deadly(config, now):
        if now == step:
            raise Killed
        return rate(config, now)

    monkeypatch.setattr(loop, "_learning_rate", deadly)


@pytest.mark.parametrize("killed", [2, 6], ids=["before the first checkpoint", "after it"])
@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_resumed_run_is_bit_identical(
    request, tmp_path, monkeypatch, pretrain_config, stage, killed
):
    config = request.getfixturevalue(f"{stage}_config")
    run = {"pretrain": pretrain, "finetune": finetune}[stage]
    if stage == "finetune":  # what stage 1 gave must be there again
        pretrain(dataclasses.replace(pretrain_config, steps=1), tmp_path / "run1", progress=False)
        config = dataclasses.replace(config, init=str(tmp_path / "run1"))
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    whole = run(config, tmp_path / "whole", progress=False)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        killed_at(patched, killed)
        run(config, tmp_path / "broken", progress=False)
    stored = type(config).read(RunFolder(tmp_path / "broken").config)
    resumed = run(stored, tmp_path / "broken", resume=True, progress=False)
    for name in ("latest", "best"):
        a, b = (read_checkpoint(getattr(r, name)) for r in (whole, resumed))
        assert a.step == b.step
        assert a.best == b.best
        for key, value in a.weights.items():
            assert torch.equal(value, b.weights[key]), f"{name}: {key}"
    losses = [[r["loss"] for r in run.read_metrics() if "loss" in r] for run in (whole, resumed)]
    assert losses[0] == losses[1]


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
    assert read_checkpoint(run.best).best == min(losses)
    assert run.curves.exists()
    assert [path.name for path in run.samples.iterdir()] == ["step_0000060.png"]


def test_sampling_a_run_leaves_a_grid(tmp_path, pretrain_config):
    pretrain(pretrain_config, tmp_path / "run", progress=False)
    sample_run(tmp_path / "run", tmp_path / "grid.png", count=5, steps=3)
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size == (3 * 32, 2 * 32)
    for wrong, told in (({"size": 12}, "multiple of 8"), ({"steps": 51}, "the 50 of the run")):
        with pytest.raises(InputError, match=told):
            sample_run(tmp_path / "run", tmp_path / "other.png", **wrong)
    with pytest.raises(InputError, match="PNG"):
        sample_run(tmp_path / "run", tmp_path / "grid.jpg")
    with pytest.raises(OutputError, match="--overwrite"):
        sample_run(tmp_path / "run", tmp_path / "grid.png", steps=3)


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
    best = read_checkpoint(run.best).best
    assert best is not None
    assert best > 0.8
    info = export_run(tmp_path / "run2", tmp_path / "model.ts", licence="CC0-1.0")
    assert info.classes == ("background", "disc")
    assert info.mpp == 0.5
    assert info.training["validation_dice"] == best
    assert info.training["initial_weights"] == "run1"
    assert info.training["settings"]["stage1"]["steps"] == pretrain_config.steps
    assert str(tmp_path) not in info.to_json(), "names of folders are nobody's business"
    assert load_model(tmp_path / "model.ts", "cpu").info == info
    with pytest.raises(OutputError, match="--overwrite"):
        export_run(tmp_path / "run2", tmp_path / "model.ts")


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


def test_resolution_that_contradicts_stage_1_is_refused(tmp_path, pretrain_config, finetune_config):
    pretrain(pretrain_config, tmp_path / "run1", progress=False)
    init = str(tmp_path / "run1")
    with pytest.raises(InputError, match=r"0\.25 um/px contradicts .* add --resample-to 0\.5"):
        finetune(dataclasses.replace(finetune_config, init=init, image_mpp=0.25), tmp_path / "run2")
    assert not (tmp_path / "run2").exists()
    resampled = dataclasses.replace(finetune_config, init=init, image_mpp=0.25, mpp=0.5)
    run = finetune(resampled, tmp_path / "run2", progress=False)
    assert FinetuneConfig.read(run.config).mpp == 0.5


def test_a_resolution_that_is_nearly_that_of_stage_1_is_brought_to_it(
    tmp_path, monkeypatch, pretrain_config, finetune_config
):
    pretrain(pretrain_config, tmp_path / "run1", progress=False)
    seen = []
    monkeypatch.setattr(
        "genselfdiff.training.finetuning.train",
        lambda task, *_, **__: seen.append(task.validation.images[0].shape) or 0.0,
    )
    for number, image_mpp in enumerate((0.46, 0.495)):
        config = dataclasses.replace(
            finetune_config, init=str(tmp_path / "run1"), image_mpp=image_mpp
        )
        run = finetune(config, tmp_path / f"run{2 + number}")
        assert FinetuneConfig.read(run.config).mpp == 0.5
    assert seen == [(88, 88, 3), (96, 96, 3)]


def test_architecture_that_contradicts_stage_1_is_refused(
    tmp_path, pretrain_config, finetune_config
):
    pretrain(pretrain_config, tmp_path / "run1", progress=False)
    for setting in ({"architecture": "paper"}, {"width": 64}):
        config = dataclasses.replace(finetune_config, init=str(tmp_path / "run1"), **setting)
        with pytest.raises(InputError, match=r"contradicts stage 1 .*leave it out"):
            finetune(config, tmp_path / "run2")
    assert not (tmp_path / "run2").exists()


def test_the_split_is_kept(tmp_path, fields, monkeypatch, finetune_config):
    config = dataclasses.replace(finetune_config, val=None)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        killed_at(patched, 5)
        finetune(config, tmp_path / "run", progress=False)
    stored = FinetuneConfig.read(RunFolder(tmp_path / "run").config)
    (held_out,) = stored.val
    for folder in (fields / "images", fields / "masks"):
        shutil.copy(folder / "patient1-a.png", folder / "another.png")
    stems = []
    monkeypatch.setattr(
        "genselfdiff.training.finetuning.train",
        lambda task, *_, **__: stems.append(task.validation.stems) or 0.0,
    )
    finetune(stored, tmp_path / "run", resume=True)
    assert stems == [[held_out]]
    for folder in ("images", "masks"):
        (fields / folder / f"{held_out}.png").unlink()
    with pytest.raises(InputError, match=f"{held_out}: matches none"):
        finetune(stored, tmp_path / "run", resume=True)


def test_a_class_counts_only_where_the_mask_holds_it(tmp_path, fields, finetune_config, caplog):
    mask = np.zeros((96, 96), np.uint8)
    mask[:20] = 2
    Image.fromarray(mask).save(fields / "masks" / "patient0-a.png")
    config = dataclasses.replace(
        finetune_config, classes=("background", "disc", "rare"), val="patient0,patient1", steps=1
    )
    run = finetune(config, tmp_path / "run", progress=False)
    assert "no training image holds: rare" in caplog.text
    (figures,) = (r["validation"] for r in run.read_metrics() if "validation" in r)
    # "rare" is in one image only, "disc" in the other only; a mean over both would be mixed with 1.
    assert figures["score"] == pytest.approx((figures["Dice disc"] + figures["Dice rare"]) / 2)
    assert figures["Dice rare"] < 0.5


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


def test_an_absurd_enlargement_is_refused(tmp_path, finetune_config):
    for image_mpp, mpp in ((25.0, 0.5), (0.5, 0.05)):
        config = dataclasses.replace(finetune_config, image_mpp=image_mpp, mpp=mpp)
        with pytest.raises(InputError, match=r"times to reach .*check --mpp"):
            finetune(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_unknown_resolution_is_asked_for(tmp_path, finetune_config, pretrain_config):
    with pytest.raises(InputError, match=r"patient0-a\.png: .*--mpp"):
        finetune(dataclasses.replace(finetune_config, image_mpp=None), tmp_path / "run")
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


def test_a_run_is_resumed_from_any_folder(tmp_path, fields, monkeypatch, finetune_config):
    monkeypatch.chdir(fields)
    config = dataclasses.replace(finetune_config, images="images", masks="masks")
    run = finetune(config, tmp_path / "run", progress=False)
    monkeypatch.chdir(tmp_path.parent)
    finetune(FinetuneConfig.read(run.config), run.path, resume=True, progress=False)


def test_a_full_disk_is_told(tmp_path, pretrain_config):
    run = pretrain(pretrain_config, tmp_path / "run", progress=False)
    run.metrics.unlink()
    run.metrics.symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"metrics\.jsonl: cannot be written: No space left"):
        run.append_metrics({"step": 1})


def test_divergence_stops_with_the_last_checkpoint(tmp_path, monkeypatch, finetune_config):
    original = FinetuneTask.loss

    def diverging(self, network, batch, first):
        loss = original(self, network, batch, first)
        return loss * float("nan") if first >= 24 else loss

    monkeypatch.setattr(FinetuneTask, "loss", diverging)
    with pytest.raises(TrainingError, match=r"became nan at step 7 .*--learning-rate"):
        finetune(finetune_config, tmp_path / "run", progress=False)
    assert read_checkpoint(RunFolder(tmp_path / "run").latest).step == 4


def test_a_gradient_that_is_not_finite_never_reaches_a_checkpoint(
    tmp_path, monkeypatch, finetune_config
):
    original = FinetuneTask.loss

    def diverging(self, network, batch, first):
        loss = original(self, network, batch, first)
        if first == 28:  # the step of the second validation
            loss.register_hook(lambda gradient: gradient * float("inf"))
        return loss

    monkeypatch.setattr(FinetuneTask, "loss", diverging)
    with pytest.raises(TrainingError, match="the gradient became nan at step 8"):
        finetune(finetune_config, tmp_path / "run", progress=False)
    run = RunFolder(tmp_path / "run")
    for checkpoint in (read_checkpoint(run.latest), read_checkpoint(run.best)):
        assert checkpoint.step == 4
        assert all(torch.isfinite(value).all() for value in checkpoint.weights.values())


def test_a_run_without_a_finite_score_says_so(tmp_path, monkeypatch, finetune_config):
    monkeypatch.setattr(FinetuneTask, "validate", lambda *_: {"score": float("nan")})
    with pytest.raises(TrainingError, match="no validation gave a finite score"):
        finetune(finetune_config, tmp_path / "run", progress=False)
    assert not RunFolder(tmp_path / "run").best.exists()


def test_interrupt_finishes_the_step_and_can_be_resumed(tmp_path, monkeypatch, finetune_config):
    whole = finetune(finetune_config, tmp_path / "whole", progress=False)
    original = FinetuneTask.loss

    def interrupting(self, network, batch, first):
        if first == 8:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, network, batch, first)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(FinetuneTask, "loss", interrupting)
        finetune(finetune_config, tmp_path / "run", progress=False)
    run = RunFolder(tmp_path / "run")
    assert read_checkpoint(run.latest).step == 3
    finetune(FinetuneConfig.read(run.config), run.path, resume=True, progress=False)
    after = read_checkpoint(run.latest).weights
    for key, value in read_checkpoint(whole.latest).weights.items():
        assert torch.equal(value, after[key]), key


def test_damaged_checkpoints_are_named(tmp_path, pretrain_config):
    run = pretrain(pretrain_config, tmp_path / "run", progress=False)
    content = run.latest.read_bytes()
    run.latest.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match=r"latest\.safetensors: damaged"):
        pretrain(pretrain_config, run.path, resume=True, progress=False)
    with pytest.raises(ModelError, match="not a run folder"):
        export_run(tmp_path / "nowhere", tmp_path / "model.ts")
    with pytest.raises(
        ModelError, match=r"run: a run of `gsd train pretrain`, not of `gsd train finetune`"
    ):
        export_run(run.path, tmp_path / "model.ts")
    config = json.loads(run.config.read_text())
    run.config.write_text(json.dumps(config | {"width": 16}))
    with pytest.raises(ModelError, match=r"best\.safetensors: .* has shape .*, but this network"):
        sample_run(run.path, tmp_path / "grid.png")
    for damage, told in (
        ({"colour": 1}, "unknown setting 'colour'"),
        ({"steps": "many"}, "damaged"),
        ({"steps": 0}, "damaged: steps must be at least 1"),
    ):
        run.config.write_text(json.dumps(config | damage))
        with pytest.raises(ModelError, match=rf"config\.json: {told}"):
            PretrainConfig.read(run.config)


@pytest.mark.parametrize(
    ("kind", "setting", "value"),
    [
        (PretrainConfig, "steps", 0),
        (PretrainConfig, "batch_size", 0),
        (PretrainConfig, "validate_every", -1),
        (PretrainConfig, "seed", -1),
        (PretrainConfig, "workers", -1),
        (PretrainConfig, "tile_size", 20),
        (PretrainConfig, "learning_rate", 0),
        (PretrainConfig, "learning_rate", float("nan")),
        (PretrainConfig, "mpp", -1),
        (PretrainConfig, "image_mpp", 0),
        (PretrainConfig, "precision", "fp16"),
        (PretrainConfig, "architecture", "resnet"),
        (PretrainConfig, "width", 0),
        (PretrainConfig, "schedule", "constant"),
        (PretrainConfig, "timesteps", 0),
        (PretrainConfig, "p2_k", -5),
        (PretrainConfig, "validation_tiles", 0),
        (PretrainConfig, "sample_every", -1),
        (FinetuneConfig, "image_mpp", 1000),
        (FinetuneConfig, "augmentation", "mixup"),
        (FinetuneConfig, "loss_form", "Pixel"),
        (FinetuneConfig, "input_scaling", "imagenet"),
        (FinetuneConfig, "ignore_label", 256),
        (FinetuneConfig, "classes", ("a", "a")),
        (FinetuneConfig, "classes", ("a", "")),
        (FinetuneConfig, "classes", ("a",)),
    ],
)
def test_settings_out_of_range_are_refused_by_name(kind, setting, value):
    with pytest.raises(InputError, match=setting):
        kind(**{setting: value})


def test_foreground_has_two_classes():
    with pytest.raises(InputError, match="two classes, but 3"):
        FinetuneConfig(classes=("a", "b", "c"), foreground=True)


def test_the_folds_of_a_run_are_kept(tmp_path, fields, monkeypatch, finetune_config):
    monkeypatch.setattr("genselfdiff.training.finetuning.train", lambda *_, **__: 0.0)
    stems = {path.stem for path in (fields / "images").iterdir()}
    patients = {stem.partition("-")[0] for stem in stems}
    config = dataclasses.replace(finetune_config, val=None, group="patient.", steps=1)
    held_out = []
    for k in range(1, len(patients) + 1):
        fold = dataclasses.replace(config, fold=(k, len(patients)))
        run = finetune(fold, tmp_path / f"run{k}", progress=False)
        stored = FinetuneConfig.read(run.config)
        assert stored.fold == (k, len(patients))
        assert len({stem.partition("-")[0] for stem in stored.val}) == 1
        held_out += stored.val
        finetune(stored, run.path, resume=True)
    assert sorted(held_out) == sorted(stems)
