"""A run that goes wrong stops, says where, and leaves its checkpoints whole."""

import dataclasses

import pytest
import torch

from genselfdiff.errors import TrainingError
from genselfdiff.training import finetune
from genselfdiff.training.distributed import World
from genselfdiff.training.finetuning import FinetuneTask
from genselfdiff.training.health import LossWatch
from genselfdiff.training.run_folder import RunFolder, read_checkpoint


def test_divergence_stops_with_the_last_checkpoint(tmp_path, monkeypatch, finetune_config):
    original = FinetuneTask.loss

    def diverging(self, network, batch, first):
        loss = original(self, network, batch, first)
        return loss * float("nan") if first >= 24 else loss

    monkeypatch.setattr(FinetuneTask, "loss", diverging)
    with pytest.raises(
        TrainingError, match=r"nan at step 7, with crops 24 to 27 of patient.*--learning-rate"
    ):
        finetune(finetune_config, tmp_path / "run", progress=False)
    assert read_checkpoint(RunFolder(tmp_path / "run").latest).state.step == 4


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
        assert checkpoint.state.step == 4
        assert all(torch.isfinite(value).all() for value in checkpoint.weights.values())


def test_a_run_without_a_finite_score_says_so(tmp_path, monkeypatch, finetune_config):
    monkeypatch.setattr(FinetuneTask, "validate", lambda *_: {})
    monkeypatch.setattr(FinetuneTask, "summarise", lambda *_: ({"score": float("nan")}, {}))
    with pytest.raises(TrainingError, match="no validation gave a finite score"):
        finetune(finetune_config, tmp_path / "run", progress=False)
    assert not RunFolder(tmp_path / "run").best.exists()


def test_a_loss_that_grows_and_grows_is_told(tmp_path, monkeypatch, finetune_config):
    original = FinetuneTask.loss

    def growing(self, network, batch, first):
        return original(self, network, batch, first) * 2.0 ** (first // 4)

    monkeypatch.setattr(FinetuneTask, "loss", growing)
    config = dataclasses.replace(finetune_config, log_every=1)
    with pytest.raises(TrainingError, match=r"diverged: .* at step [567],.*crops \d+ to \d+ of"):
        finetune(config, tmp_path / "run", progress=False)
    run = RunFolder(tmp_path / "run")
    assert read_checkpoint(run.latest).state.step == 4


def test_a_diverged_loss_is_noticed_between_two_lines():
    watch = LossWatch("run", "samples of step {}".format)
    watch.add(torch.tensor([1.0, 1.0]))
    watch.read(1, World())
    assert watch.line(1) == (1.0, 1.0)
    for _ in range(2, 11):
        watch.add(torch.tensor([50.0, 1.0]))
    watch.read(10, World())  # nine may be chance
    watch.add(torch.tensor([50.0, 1.0]))
    with pytest.raises(TrainingError, match=r"diverged: the loss is 50 at step 11, .* of step 11"):
        watch.read(11, World())
