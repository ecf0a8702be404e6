"""A run on disk: what it leaves alone, and what of it is damaged."""

import dataclasses
import os
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import nn

from genselfdiff.errors import InputError, ModelError, OutputError
from genselfdiff.training import run_folder, runs
from genselfdiff.training.export import export
from genselfdiff.training.loop.distributed import World
from genselfdiff.training.loop.health import LossWatch
from genselfdiff.training.loop.records import restore
from genselfdiff.training.loop.step import TrainingStep
from genselfdiff.training.run_folder import RunFolder, read_checkpoint, resumable_tensors
from genselfdiff.training.runs import finetune, pretrain
from genselfdiff.training.sample import NoisedTiles, Sampling, restore_tiles, sample_run
from genselfdiff.training.settings.run_config import RunConfig
from genselfdiff.training.settings.stage_configs import PretrainConfig
from gsd.main import main


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
