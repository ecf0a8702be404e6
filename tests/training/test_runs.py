import dataclasses
import json
import os
import signal

import pytest
import torch
from PIL import Image

import genselfdiff.training.loop as loop
from genselfdiff.diffusion import NoiseSchedule
from genselfdiff.errors import InputError, ModelError, OutputError, TrainingError
from genselfdiff.inference.model_file import load_model
from genselfdiff.training import FinetuneConfig, PretrainConfig, export_run, finetune, pretrain
from genselfdiff.training.finetune import FinetuneTask
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


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_resumed_run_is_bit_identical(request, tmp_path, monkeypatch, stage):
    config = request.getfixturevalue(f"{stage}_config")
    run = {"pretrain": pretrain, "finetune": finetune}[stage]
    whole = run(config, tmp_path / "whole", progress=False)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        killed_at(patched, 6)
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
    with pytest.raises(InputError, match="multiple of 8"):
        sample_run(tmp_path / "run", tmp_path / "grid.png", size=12)


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
    with pytest.raises(OutputError, match="choose another --out, or --resume"):
        pretrain(pretrain_config, tmp_path / "run", progress=False)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_divergence_stops_with_the_last_checkpoint(tmp_path, monkeypatch, finetune_config):
    original = FinetuneTask.loss

    def diverging(self, network, batch, first):
        loss = original(self, network, batch, first)
        return loss * float("nan") if first >= 24 else loss

    monkeypatch.setattr(FinetuneTask, "loss", diverging)
    with pytest.raises(TrainingError, match=r"became nan at step 7 .*--learning-rate"):
        finetune(finetune_config, tmp_path / "run", progress=False)
    assert read_checkpoint(RunFolder(tmp_path / "run").latest).step == 4


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
    with pytest.raises(ModelError, match="not a run of `gsd train finetune`"):
        export_run(run.path, tmp_path / "model.ts")
    config = json.loads(run.config.read_text())
    run.config.write_text(json.dumps(config | {"colour": 1}))
    with pytest.raises(ModelError, match="unknown setting 'colour'"):
        PretrainConfig.read(run.config)


def test_settings_out_of_range_are_refused():
    for setting, value in (
        ("steps", 0),
        ("tile_size", 20),
        ("learning_rate", 0),
        ("mpp", -1),
        ("batch_size", 0),
    ):
        with pytest.raises(InputError, match=str(value)):
            PretrainConfig(**{setting: value})
