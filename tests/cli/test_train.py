"""gsd train as it is typed: where settings come from, dry runs, and how it ends."""

import os
import signal
import tomllib

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from genselfdiff.training.finetuning import FinetuneTask
from genselfdiff.training.settings.presets import PRESETS
from gsd.main import main

TINY = ["--architecture", "tiny", "--width", "8", "--tile-size", "32", "--device", "cpu"]


def gsd(*arguments, code=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def labelled(tmp_path):
    """Options of stage 2 for four small fields."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for i in range(4):
        mask = np.zeros((64, 64), np.uint8)
        mask[8 * i : 8 * i + 30, 10:40] = 1
        image = np.where(mask[..., None] == 1, (90, 60, 140), (225, 160, 190))
        image = image + rng.normal(0, 8, image.shape)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(tmp_path / f"images/p{i}.png")
        Image.fromarray(mask).save(tmp_path / f"masks/p{i}.png")
    return ["--images", tmp_path / "images", "--masks", tmp_path / "masks", "--init", "none"]


def settings_of(run):
    return tomllib.loads((run / "config.toml").read_text())


def test_the_command_line_wins_over_the_file_and_the_file_over_the_preset(tmp_path, labelled):
    (tmp_path / "study.toml").write_text(
        'preset = "paper"\n'
        "seed = 5\nbatch-size = 2\nmpp = 0.5\nsteps = 3\n"
        'classes = ["background", "gland"]\nval = ["p1"]\n'
        "[pretrain]\nsteps = 100\n"
        "[finetune]\nsteps = 2\nwidth = 16\n"
    )
    gsd(
        *("train", "finetune", *labelled, "--config", tmp_path / "study.toml"),
        *(*TINY, "--batch-size", 4, "--out", tmp_path / "run"),
    )
    found = settings_of(tmp_path / "run")
    assert found["seed"] == 5, "of the file"
    assert found["steps"] == 2, "of the stage's table"
    assert (found["batch_size"], found["width"]) == (4, 8), "of the command line"
    assert found["architecture"] == "tiny", "of the command line, not of the preset"
    for name in ("beta1", "ema", "clip_norm", "augmentation", "input_scaling", "decay"):
        assert found[name] == PRESETS["paper"]["finetune"][name], "of the preset"
    assert found["validate_every"] == 200, "the default"
    assert found["classes"] == ["background", "gland"]
    assert found["val"] == ["p1"]


def test_what_is_typed_replaces_what_tells_the_same_in_a_file(tmp_path, labelled):
    common = [*TINY, "--steps", 1, "--batch-size", 2, "--mpp", 0.5]
    gsd("train", "finetune", *labelled, *common, "--fold", "1/4", "--out", tmp_path / "fold1")
    again = ["train", "finetune", "--config", tmp_path / "fold1" / "config.toml"]
    gsd(*again, "--fold", "2/4", "--out", tmp_path / "fold2")
    gsd(*again, "--val", "p3", "--out", tmp_path / "named")
    first, second, named = (settings_of(tmp_path / n) for n in ("fold1", "fold2", "named"))
    assert second["fold"] == [2, 4]
    assert second["val"] != first["val"]
    assert named["val"] == ["p3"]
    assert "fold" not in named
    kept = ["--init", tmp_path / "fold1", "--start-share", 0.5, "--out", tmp_path / "kept"]
    gsd(*again, *kept)
    of_other = ["train", "finetune", "--config", tmp_path / "kept" / "config.toml"]
    gsd(*of_other, "--init", "none", "--out", tmp_path / "scratch")
    assert settings_of(tmp_path / "kept")["start_share"] == 0.5
    assert settings_of(tmp_path / "scratch")["start_share"] == 0, "that was of the other --init"
    gsd(*again, "--architecture", "small", "--out", tmp_path / "small")
    assert settings_of(tmp_path / "small")["width"] == 32, "its own, not that of the other"


@pytest.mark.parametrize("data", ['"images"', '["images", "masks/../images/p0.png"]'])
def test_a_file_can_name_the_data(tmp_path, labelled, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.toml").write_text(
        f"data = {data}\nmpp = 0.5\nimage_mpp = 0.5\nsteps = 2\nbatch_size = 2\n"
        "validation_tiles = 2\n"
    )
    gsd("train", "pretrain", "--config", "study.toml", *TINY, "--out", "run")
    found = settings_of(tmp_path / "run")
    assert found["data"][0] == str(tmp_path / "images")
    assert len(found["data"]) == 1 + data.count(",")
    gsd("train", "pretrain", "--config", "run/config.toml", "--steps", 1, "--out", "again")
    assert settings_of(tmp_path / "again") == found | {"steps": 1}


def test_a_run_can_be_repeated_from_its_settings(tmp_path, labelled):
    common = [*TINY, "--steps", 2, "--batch-size", 2, "--mpp", 0.5, "--fold", "2/3"]
    gsd("train", "finetune", *labelled, *common, "--out", tmp_path / "run")
    first = settings_of(tmp_path / "run")
    gsd(
        *("train", "finetune", "--config", tmp_path / "run" / "config.toml"),
        *("--seed", 7, "--out", tmp_path / "again"),
    )
    assert settings_of(tmp_path / "again") == first | {"seed": 7}
    told = gsd(
        *("train", "pretrain", "--config", tmp_path / "run" / "config.toml"),
        *("--out", tmp_path / "other"),
        code=1,
    )
    assert "config.toml: has the settings of another stage" in told.output


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("steps = ", "study.toml: is not TOML: "),
        ('steps = "many"', "study.toml: steps: 'many' is not a valid integer"),
        ("steps = 2.5", "study.toml: steps: '2.5' is not a valid integer"),
        ("steps = [1, 2]", "study.toml: steps: give a single value"),
        ("steps.a.b = 1", "study.toml: steps: give a single value"),
        ("val = [['p1']]", "study.toml: val: give a single value or a list of them"),
        pytest.param(
            "steps = " + "9" * 400, "steps is larger than the whole numbers of 64 bits", id="400"
        ),
        pytest.param("steps = " + "9" * 5000, "study.toml: is not TOML: Exceeds the", id="5000"),
        pytest.param("steps = 0x" + "f" * 5000, "steps: the number is too large", id="base 16"),
        ("fold = [1.5, 4]", "study.toml: fold: ['1.5', '4'] is not K/N"),
        ("fold = [inf, 4]", "study.toml: fold: ['inf', '4'] is not K/N"),
        ("learning_rate = 1e400", "learning_rate must be a finite number, not inf"),
        ("clip_norm = nan", "clip_norm must be a finite number, not nan"),
        pytest.param("steps = " + "[" * 100_000, "study.toml: is nested too deeply", id="deep"),
        ('classes = ["a", "b\\u001b[2J"]', "classes: b\\x1b[2J holds characters that cannot be"),
        (
            "tile_sise = 32",
            "study.toml: gsd train finetune has no setting 'tile_sise'; is tile_size",
        ),
        ('decay = "linear"', "study.toml: decay: 'linear' is not one of"),
        ("[fintune]", "has no setting 'fintune'; is finetune meant?"),
        ("finetune = 3", "study.toml: finetune must be a table"),
        ('out = "run"', "study.toml: gsd train finetune has no setting 'out'"),
    ],
)
def test_what_is_wrong_in_a_file_is_told(tmp_path, labelled, text, told):
    (tmp_path / "study.toml").write_text(text + "\n")
    result = gsd(
        *("train", "finetune", *labelled, "--mpp", 0.5, *TINY),
        *("--config", tmp_path / "study.toml", "--out", tmp_path / "run"),
        code=1,
    )
    assert told in result.output
    assert not (tmp_path / "run").exists()


def test_a_dry_run_tells_and_writes_nothing(tmp_path, labelled):
    before = sorted(tmp_path.rglob("*"))
    told = gsd("train", "finetune", *labelled, "--mpp", 0.5, *TINY, "--steps", 720, "--dry-run")
    assert "tiny, width 8, 0.2 M parameters, at 0.5 um/px, tiles of 32 pixels" in told.output
    assert "run: 720 steps, about" in told.output
    assert sorted(tmp_path.rglob("*")) == before


def test_out_is_needed_unless_it_is_a_dry_run(labelled):
    bare = gsd("train", "finetune", "--images", "fields", code=2)
    assert "missing: --masks, --init (--init none trains from scratch)" in bare.output
    told = gsd("train", "finetune", *labelled, "--mpp", 0.5, code=2)
    assert "Missing option '--out'" in told.output
    assert "--out" in gsd("train", "finetune", "--resume", code=2).output
    both = gsd("train", "finetune", "--resume", "--dry-run", "--out", "run", code=2)
    assert "leave out --resume" in both.output


def test_a_folder_says_where_images_and_masks_are_and_what_they_mean(tmp_path, labelled):
    (tmp_path / "classes.csv").write_text("value,class\n0,glass\n1,'=disc\n")
    common = [*TINY, "--mpp", 0.5, "--init", "none", "--steps", 2]
    gsd("train", "finetune", tmp_path, *common, "--out", tmp_path / "run")
    found = settings_of(tmp_path / "run")
    assert (found["images"], found["masks"]) == (str(tmp_path / "images"), str(tmp_path / "masks"))
    assert (found["classes"], found["ignore_label"]) == (["glass", "=disc"], 255)
    # What the command line says counts more, and the folder more than a file.
    other = tmp_path / "other"
    (tmp_path / "masks").rename(tmp_path / "instances")
    other.mkdir()
    for part in ("images", "instances"):
        (tmp_path / part).rename(other / part)
    for path in (other / "instances").iterdir():
        numbers = np.array(Image.open(path))
        numbers[50:, 50:] = 2
        Image.fromarray(numbers).save(path)
    again = ["train", "finetune", other, "--config", tmp_path / "run" / "config.toml"]
    gsd(*again, "--instances", "--ignore-label", 9, "--out", tmp_path / "second")
    found = settings_of(tmp_path / "second")
    assert (found["masks"], found["foreground"]) == (str(other / "instances"), True)
    assert (found["ignore_label"], found["seed"]) == (9, settings_of(tmp_path / "run")["seed"])
    told = gsd(*again, "--out", tmp_path / "third", code=1)
    assert "masks: no such folder: 'gsd data import'" in told.output
    told = gsd("train", "finetune", other, *labelled, "--out", tmp_path / "third", code=2)
    assert "name FOLDER, or --images and --masks" in told.output
    (other / "classes.csv").write_text("value,class\n0,a\n1,b\n2,c\n")
    told = gsd(*again, "--instances", "--out", tmp_path / "third", code=1)
    assert "has 3 classes, but --instances is for objects of one" in told.output
    told = gsd("train", "finetune", other, "--out", tmp_path / "run", "--resume", code=2)
    assert "leave out FOLDER" in told.output


@pytest.mark.parametrize("table", ["", "a,b\n0,1\n", "value,class\n1,a\n", "value,class\n0,a\n"])
def test_odd_tables_of_classes_are_refused(tmp_path, labelled, table):
    (tmp_path / "classes.csv").write_text(table)
    gsd("train", "finetune", tmp_path, *TINY, "--init", "none", "--out", tmp_path / "run", code=1)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_exit_status_tells_the_signal(tmp_path, labelled, monkeypatch, number, status):
    original = FinetuneTask.loss

    def interrupting(self, network, batch, first):
        if first == 4:
            os.kill(os.getpid(), number)
        return original(self, network, batch, first)

    monkeypatch.setattr(FinetuneTask, "loss", interrupting)
    arguments = [*labelled, "--mpp", 0.5, *TINY, "--batch-size", 2, "--steps", 9]
    told = gsd("train", "finetune", *arguments, "--out", tmp_path / "run", code=status)
    assert "stopped after step 3; --resume goes on" in told.output


def test_events_for_tensorboard(tmp_path, labelled):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    arguments = [*labelled, "--mpp", 0.5, *TINY, "--batch-size", 2, "--log-every", 2]
    run = tmp_path / "run"
    gsd("train", "finetune", *arguments, "--steps", 4, "--tensorboard", "--out", run)
    gsd("train", "finetune", "--out", run, "--resume", "--steps", 6)
    events = event_accumulator.EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("training/loss")] == [2, 4, 6]
    assert [event.step for event in events.Scalars("validation/score")] == [4, 6]
    assert "fields" in events.Tags()["images"]
