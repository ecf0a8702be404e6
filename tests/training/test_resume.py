"""A run that was stopped, killed or lengthened goes on as if nothing had happened."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import genselfdiff.training.loop.step as step_module
from genselfdiff.errors import InputError, ModelError, OutputError
from genselfdiff.training.export import export
from genselfdiff.training.finetuning import FinetuneTask
from genselfdiff.training.run_folder import RunFolder, read_checkpoint
from genselfdiff.training.runs import finetune, pretrain
from genselfdiff.training.settings.stage_configs import FinetuneConfig, PretrainConfig


class Killed(BaseException):
    """What no handler expects."""


def killed_at(monkeypatch, step):
    """Let the process die at the start of optimiser step ``step``, as if by kill -9."""
    rate = step_module.learning_rate

    def deadly(config, now):
        if now == step:
            raise Killed
        return rate(config, now)

    monkeypatch.setattr(step_module, "learning_rate", deadly)


def test_the_users_function_is_told_each_line_and_may_end_the_run(
    tmp_path, pretrain_config, assert_same_checkpoints
):
    config = dataclasses.replace(pretrain_config, log_every=3)
    told: list[dict[str, float]] = []
    whole = pretrain(config, tmp_path / "whole", progress=False, on_log=told.append)
    assert [line["step"] for line in told] == [3, 4, 6, 8, 8]
    records = [line for line in whole.read_metrics() if "data" not in line]
    assert [line["training/loss"] for line in told if "training/loss" in line] == [
        line["loss"] for line in records if "loss" in line
    ]
    assert told[1]["validation/score"] == records[1]["validation"]["score"]

    def enough(line: dict[str, float]) -> None:
        if line["step"] == 6:
            raise ArithmeticError("good enough")

    with pytest.raises(ArithmeticError, match="good enough") as caught:
        pretrain(config, tmp_path / "ended", progress=False, on_log=enough)
    assert "on_log at step 6" in caught.value.__notes__[0]
    assert str(tmp_path / "ended") in caught.value.__notes__[0]
    ended = RunFolder(tmp_path / "ended")
    assert read_checkpoint(ended.latest).state.step == 6
    stored = PretrainConfig.read(ended.config)
    pretrain(stored, ended.path, resume=True, progress=False)
    for name in ("latest", "best"):
        a, b = (read_checkpoint(getattr(run, name)) for run in (whole, ended))
        assert_same_checkpoints(a, b)


@pytest.mark.parametrize("killed", [2, 6], ids=["before the first checkpoint", "after it"])
@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_resumed_run_is_bit_identical(
    request, tmp_path, monkeypatch, pretrain_config, assert_same_checkpoints, stage, killed
):
    config = request.getfixturevalue(f"{stage}_config")
    run = {"pretrain": pretrain, "finetune": finetune}[stage]
    if stage == "finetune":  # what stage 1 gave must be there again
        pretrain(dataclasses.replace(pretrain_config, steps=1), tmp_path / "run1", progress=False)
        config = dataclasses.replace(config, init=str(tmp_path / "run1"))
    config = dataclasses.replace(config, log_every=3)
    whole = run(config, tmp_path / "whole", progress=False)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        killed_at(patched, killed)
        run(config, tmp_path / "broken", progress=False)
    stored = type(config).read(RunFolder(tmp_path / "broken").config)
    resumed = run(stored, tmp_path / "broken", resume=True, progress=False)
    for name in ("latest", "best"):
        a, b = (read_checkpoint(getattr(r, name)) for r in (whole, resumed))
        assert_same_checkpoints(a, b)
    losses = [[r["loss"] for r in run.read_metrics() if "loss" in r] for run in (whole, resumed)]
    assert losses[0] == losses[1]


def test_a_run_is_resumed_from_any_folder(tmp_path, fields, monkeypatch, finetune_config):
    monkeypatch.chdir(fields)
    config = dataclasses.replace(finetune_config, images="images", masks="masks")
    run = finetune(config, tmp_path / "run", progress=False)
    monkeypatch.chdir(tmp_path.parent)
    finetune(FinetuneConfig.read(run.config), run.path, resume=True, progress=False)


def test_interrupt_finishes_the_step_and_can_be_resumed(tmp_path, monkeypatch, finetune_config):
    whole = finetune(finetune_config, tmp_path / "whole", progress=False)
    original = FinetuneTask.loss

    def interrupting(self, network, batch, first):
        if first == 8:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, network, batch, first)

    def terminated(number, frame):
        raise Killed

    before = signal.signal(signal.SIGTERM, terminated)
    try:
        # The program's own way to end on the signal is taken, once the run is saved.
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(FinetuneTask, "loss", interrupting)
            finetune(finetune_config, tmp_path / "run", progress=False)
    finally:
        signal.signal(signal.SIGTERM, before)
    run = RunFolder(tmp_path / "run")
    assert read_checkpoint(run.latest).state.step == 3
    finetune(FinetuneConfig.read(run.config), run.path, resume=True, progress=False)
    after = read_checkpoint(run.latest).weights
    for key, value in read_checkpoint(whole.latest).weights.items():
        assert torch.equal(value, after[key]), key


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_run_goes_on_with_the_files_that_it_began_with(
    request, tmp_path, fields, monkeypatch, stage
):
    config = request.getfixturevalue(f"{stage}_config")
    run = {"pretrain": pretrain, "finetune": finetune}[stage]
    if stage == "finetune":
        config = dataclasses.replace(config, val=None)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        killed_at(patched, 5)
        run(config, tmp_path / "run", progress=False)
    stored = type(config).read(RunFolder(tmp_path / "run").config)
    before = RunFolder(tmp_path / "run").read_metrics()
    another = [fields / folder / "another.png" for folder in ("images", "masks")]
    for path in another:
        shutil.copy(path.parent / "patient1-a.png", path)
    with pytest.raises(InputError, match=r"run: began with other files \(.*; now .*--init"):
        run(stored, tmp_path / "run", resume=True, progress=False)
    assert RunFolder(tmp_path / "run").read_metrics() == before
    for path in another:
        path.unlink()
    run(stored, tmp_path / "run", resume=True, progress=False)
    if stage == "finetune":
        (held_out,) = stored.val
        for path in another:
            (path.parent / f"{held_out}.png").unlink()
        with pytest.raises(InputError, match=f"{held_out}: matches none"):
            run(stored, tmp_path / "run", resume=True)


def test_a_run_that_had_saved_nothing_begins_with_the_files_that_are_there(
    tmp_path, fields, monkeypatch, finetune_config
):
    with monkeypatch.context() as patched, pytest.raises(Killed):
        killed_at(patched, 2)
        finetune(finetune_config, tmp_path / "run", progress=False)
    stored = FinetuneConfig.read(RunFolder(tmp_path / "run").config)
    for folder in (fields / "images", fields / "masks"):
        shutil.copy(folder / "patient1-a.png", folder / "another.png")
    with monkeypatch.context() as patched, pytest.raises(Killed):
        killed_at(patched, 6)
        finetune(stored, tmp_path / "run", resume=True, progress=False)
    assert read_checkpoint(RunFolder(tmp_path / "run").latest).state.step == 4
    finetune(stored, tmp_path / "run", resume=True, progress=False)


def test_two_processes_do_not_train_in_one_folder(tmp_path, finetune_config):
    run = finetune(finetune_config, tmp_path / "run", progress=False)
    with (
        run.opened(),
        pytest.raises(OutputError, match="run: another process is training in it"),
    ):
        finetune(FinetuneConfig.read(run.config), run.path, resume=True, progress=False)


def test_a_run_can_be_lengthened(tmp_path, finetune_config):
    run = finetune(finetune_config, tmp_path / "run", progress=False)
    longer = dataclasses.replace(FinetuneConfig.read(run.config), steps=12)
    finetune(longer, run.path, resume=True, progress=False)
    assert read_checkpoint(run.latest).state.step == 12
    assert FinetuneConfig.read(run.config).steps == 12
    steps = [record["step"] for record in run.read_metrics() if "validation" in record]
    assert steps == [4, 8, 12]
    shorter = dataclasses.replace(longer, steps=8)
    with pytest.raises(InputError, match="has taken 12 steps already"):
        finetune(shorter, run.path, resume=True, progress=False)
    assert FinetuneConfig.read(run.config).steps == 12, "what was refused is not kept"


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_another_number_of_threads_sees_the_same(request, tmp_path, stage):
    config = request.getfixturevalue(f"{stage}_config")
    config = dataclasses.replace(config, steps=50, log_every=1, validate_every=25)
    run = {"pretrain": pretrain, "finetune": finetune}[stage]
    threads, curves = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            folder = run(config, tmp_path / f"run{count}", progress=False)
            curves.append([r["loss"] for r in folder.read_metrics() if "loss" in r])
    finally:
        torch.set_num_threads(threads)
    assert len(curves[0]) == 50
    assert curves[0] == pytest.approx(curves[1], rel=0, abs=1e-3)


def test_checkpoints_that_stay(tmp_path, finetune_config):
    config = dataclasses.replace(finetune_config, keep_every=3)
    run = finetune(config, tmp_path / "run", progress=False)
    assert [path.name for path in sorted(run.kept(3).parent.iterdir())] == [
        "step_0000003.safetensors",
        "step_0000006.safetensors",
    ]
    kept = read_checkpoint(run.kept(6))
    assert kept.state.step == 6
    assert not kept.optimiser
    again = dataclasses.replace(finetune_config, init=str(run.kept(6)), steps=1)
    finetune(again, tmp_path / "again", progress=False)
    export(run.path, tmp_path / "model.ts", step=6)
    with pytest.raises(ModelError, match=r"step_0000005\.safetensors: .*--keep-every"):
        export(run.path, tmp_path / "other.ts", step=5)


def test_what_a_kill_has_left_is_removed(tmp_path, finetune_config):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").touch()  # killed before it began: no obstacle
    config = dataclasses.replace(finetune_config, keep_every=4)
    run = finetune(config, tmp_path / "run", progress=False)
    for folder in (run.path, run.fields, run.kept(4).parent):
        (folder / ".gsd-unfinished").mkdir()
        (folder / ".gsd-unfinished" / ".tmpAbC123").write_bytes(b"of safetensors")
        (folder / ".curves.png.gsd-0.png").write_bytes(b"of ours")
    before = {path.name for path in run.path.rglob("*") if not path.name.startswith(".")}
    finetune(FinetuneConfig.read(run.config), run.path, resume=True, progress=False)
    assert {path.name for path in run.path.rglob("*")} == before | {".lock"}


def test_pictures_of_a_run_among_its_data_are_no_data(tmp_path, pretrain_config, caplog):
    data = tmp_path / "data"
    for folder in pretrain_config.data:
        shutil.copytree(folder, data / Path(folder).name)
    caplog.set_level("INFO")
    config = dataclasses.replace(pretrain_config, data=(str(data),), steps=2, sample_every=1)
    run = pretrain(config, data / "run", progress=False)
    assert list(run.samples.iterdir())
    pretrain(PretrainConfig.read(run.config), run.path, resume=True, progress=False)
    first, second = (m for m in caplog.messages if m.startswith("files for training"))
    assert first == second


def test_a_signal_to_workers_too_saves_the_step_under_way(tmp_path, fields):
    run = RunFolder(tmp_path / "run")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "gsd", "train", "finetune", "--init", "none", "--mpp", "0.5"),
            *("--images", fields / "images", "--masks", fields / "masks", "--val", "patient0"),
            *("--architecture", "tiny", "--width", "8", "--tile-size", "32", "--steps", "100000"),
            *("--validate-every", "10", "--device", "cpu", "--workers", "1", "--out", run.path),
        ],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    while not run.latest.exists() and process.poll() is None:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGTERM)
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        os.kill(int(child), signal.SIGTERM)  # a worker, in a group of its own
    told = process.communicate(timeout=600)[1]
    assert process.returncode == 143, told
    last = [record["step"] for record in run.read_metrics() if "loss" in record][-1]
    assert f"stopped after step {read_checkpoint(run.latest).state.step}" in told
    assert read_checkpoint(run.latest).state.step >= last
