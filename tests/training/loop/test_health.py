"""A run that goes wrong stops, says where, and leaves its checkpoints whole."""

import dataclasses

import pytest
import torch

from genselfdiff.choices import LOSSES
from genselfdiff.errors import TrainingError
from genselfdiff.training.finetuning import FinetuneTask
from genselfdiff.training.loop.distributed import World
from genselfdiff.training.loop.health import LossWatch
from genselfdiff.training.run_folder import RunFolder, read_checkpoint
from genselfdiff.training.runs import finetune, prepared


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
    config = dataclasses.replace(finetune_config, log_every=1, steps=24, validate_every=8)
    with pytest.raises(
        TrainingError, match=r"diverged: .* at step (1[789]|2\d),.*crops \d+ to \d+ of"
    ):
        finetune(config, tmp_path / "run", progress=False)
    run = RunFolder(tmp_path / "run")
    assert read_checkpoint(run.latest).state.step == 16


def watched(losses, naive=1.0, *, done=0):
    """The step at which a watch calls divergence, and what it says; None where it does not."""
    watch = LossWatch("run", "samples of step {}".format, naive)
    for step, loss in enumerate(losses, done + 1):
        watch.add(torch.tensor([loss, 1.0]))
        try:
            watch.read(step, World())
        except TrainingError as error:
            return step, str(error)
        watch.line()
    return None


def test_divergence_is_what_most_of_the_last_losses_tell():
    step, told = watched([0.5] * 12 + [50.0] * 8)
    assert step == 18
    assert "diverged: the loss is 50 at step 18, that of a network" in told
    assert "learnt nothing 1 (last batch: samples of step 18" in told
    step, told = watched([3.0] * 10 + [31.0] * 8)
    assert step == 16, "the network began worse than one that knows nothing"
    assert "learnt nothing 3 " in told


@pytest.mark.parametrize(
    "losses",
    [
        [0.007, *[0.4] * 30],
        [0.0, *[0.9] * 30],
        [1e-6] * 20 + [0.9] * 20,
        [0.5, 0.5, 170.0, 0.5, 0.5] * 6,
        [0.5] * 15 + [170.0] * 5 + [0.5] * 10,
        [0.5] * 3 + [20.0] * 20,
        [0.5] * 9 + [21.0] * 20,
        [2.0, 0.0, 0.0, 0.0] * 10,
    ],
    ids=[
        *("first tiny", "first zero", "learnt before", "few hard", "five hard", "no worse soon"),
        *("last of the first hard", "most zero"),
    ],
)
def test_easy_and_hard_batches_are_no_divergence(losses):
    assert watched(losses) is None


def test_a_resumed_run_is_compared_with_its_beginning():
    watch = LossWatch("run", "{}".format, 1.0, first=40.0)
    for _ in range(20):
        watch.add(torch.tensor([300.0, 1.0]))
    watch.read(120, World())
    assert watch.first == 40.0


def test_what_a_network_that_knows_nothing_loses(pretrain_config, finetune_config):
    with prepared(pretrain_config) as (task, _):
        weights = task.schedule.p2_weights()
        zero = torch.zeros(400, 3, 8, 8)
        noise = torch.randn(zero.shape, generator=torch.Generator().manual_seed(0))
        t = torch.arange(400) % len(weights)
        loss = task.objective.loss(zero, noise, t).item()
        assert task.naive_loss == pytest.approx(loss, rel=0.05)
    labels = (torch.arange(4096) % 2).view(1, 64, 64)
    logits = torch.randn(1, 2, 64, 64, generator=torch.Generator().manual_seed(0)) / 100
    for name in LOSSES:
        with prepared(dataclasses.replace(finetune_config, loss=name)) as (task, _):
            loss = task.objective(logits, labels).item()
            assert task.naive_loss == pytest.approx(loss, rel=0.25), name
