"""The study: its runs go on where they were stopped, none is done twice, tables are of pairs."""

import importlib.util
import json
import shutil
from pathlib import Path

import images
import numpy as np
import pytest
import run as study
import summary
from PIL import Image
from plan import chosen, read_plan
from work import Workplace

from genselfdiff.errors import InputError

PLAN = """
seeds = [0, 1]
folds = 2
baselines = ["scratch", "scratch-as-long"]
[datasets.discs]
images = "discs/images"
masks = "discs/masks"
mpp = 0.5
group = "patient.."
[pretrain]
architecture = "tiny"
width = 8
tile_size = 32
batch_size = 2
steps = 2
warm_up = 0.0
decay = "none"
keep_every = 1
validation_tiles = 2
sample_every = 0
timesteps = 20
[finetune]
architecture = "tiny"
width = 8
tile_size = 32
batch_size = 2
steps = 2
log_every = 1
validate_every = 2
[arms.scratch]
init = "none"
[arms.scratch-as-long]
init = "none"
finetune.steps = 4
[arms.pretrained]
init = "stage 1"
[arms.pretrained-1]
init = "stage 1"
pretrain.steps = 1
[[parts]]
name = "central"
arms = ["scratch", "pretrained", "scratch-as-long"]
budgets = [2, 1]
datasets = ["discs"]
[[parts]]
name = "length"
arms = ["scratch", "pretrained-1"]
budgets = [2]
datasets = ["discs"]
"""


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "plan.toml"
    path.write_text(PLAN)
    return path


@pytest.fixture
def data(tmp_path, picture):
    for folder in ("images", "masks"):
        (tmp_path / "data" / "discs" / folder).mkdir(parents=True)
    for number in range(8):
        image = picture(48, 48, number)
        name = f"patient{number // 2:02}-{number}.png"
        Image.fromarray(image).save(tmp_path / "data" / "discs" / "images" / name)
        mask = (image[..., 0] < 150).astype(np.uint8) * 255
        Image.fromarray(mask).save(tmp_path / "data" / "discs" / "masks" / name)
    return tmp_path / "data"


@pytest.fixture
def command(tmp_path, data, plan_file, monkeypatch):
    monkeypatch.setattr(study, "POLL", 0.01)

    def call(*options, results="results"):
        told = ("--data", data, "--results", tmp_path / results, "--plan", plan_file)
        return study.main([str(argument) for argument in (*told, *options)])

    return call


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.glob("*.json")}


def test_the_most_wanted_runs_come_first_and_none_twice(plan_file):
    runs = read_plan(plan_file).runs
    assert [run.name for run in runs][:4] == [
        "discs-1-2-scratch-seed0",
        "discs-1-2-pretrained-seed0",
        "discs-1-2-scratch-as-long-seed0",
        "discs-all-scratch-seed0",
    ]
    assert len({run.key for run in runs}) == len(runs) == 14
    assert len({run.identity("x") for run in runs}) == 14


def test_a_shorter_stage_1_is_the_beginning_of_the_longer_one(plan_file):
    runs = {run.name: run for run in read_plan(plan_file).runs}
    long, short = (runs[f"discs-1-2-{arm}-seed0"] for arm in ("pretrained", "pretrained-1"))
    assert long.stage_1("x") == short.stage_1("x")
    assert long.stage_1("x") != runs["discs-1-2-pretrained-seed1"].stage_1("x")
    assert long.identity("x") != short.identity("x")
    assert long.identity("x") != long.identity("other images")


def test_shares_are_whole_and_keep_what_starts_from_one_stage_1_together(plan_file):
    runs = read_plan(plan_file).runs
    shares = [chosen(runs, None, (number, 3)) for number in (1, 2, 3)]
    assert sorted(run.name for share in shares for run in share) == sorted(r.name for r in runs)
    assert all(shares)
    for seed in (0, 1):
        holding = [
            number
            for number, share in enumerate(shares)
            if any(run.pretrain_steps and run.seed == seed for run in share)
        ]
        assert len(holding) == 1
    assert {run.part for run in chosen(runs, "length", (1, 1))} == {"length"}


def test_each_image_tests_once_and_patients_stay_together(tmp_path, data, plan_file):
    tested = []
    for run in read_plan(plan_file).runs[:1] + read_plan(plan_file).runs[-1:]:
        development, test = images.lay(run, data, tmp_path)
        learnt = {path.name[:9] for path in development.images.iterdir()}
        found = {path.name[:9] for path in test.images.iterdir()}
        assert not learnt & found
        tested += [path.name for path in test.images.iterdir()]
    assert len(tested) == len(set(tested)) == 8


def test_runs_go_on_where_they_were_stopped(tmp_path, command):
    assert command("--only", "discs-1-2-pretrained*seed0") == 0
    through = contents(tmp_path / "results")
    assert len(through) == 2
    work = tmp_path / "results-work" / "runs"
    assert not list(work.glob("discs-1-2-*/*.safetensors"))

    # Stopped after each line of the metrics, and stage 1 made longer when it had ended.
    for only in ("discs-1-2-pretrained-1-seed0", "discs-1-2-pretrained*seed0"):
        for _ in range(10):
            assert command("--only", only, "--hours", "0", results="stopped") == 0
    stopped = contents(tmp_path / "stopped")
    assert stopped.keys() == through.keys()
    for name, text in through.items():
        told, again = json.loads(text), json.loads(stopped[name])
        assert told["scores"] == again["scores"]
        assert told["validation_dice"] == again["validation_dice"]
        assert len(told["scores"]) == 4
        assert told["training_images"] == 1
        assert told["pretrain"]["steps"] == (1 if "pretrained-1-" in name else 2)
        assert told["step_seconds"] > 0

    # What is done stays as it is, whatever else is missing.
    gone, kept = sorted(through)
    (tmp_path / "results" / gone).unlink()
    shutil.rmtree(work / gone.removesuffix(".json"))
    assert command("--only", "discs-1-2-pretrained*seed0") == 0
    after = contents(tmp_path / "results")
    assert json.loads(after[gone])["scores"] == json.loads(through[gone])["scores"]
    assert after[kept] == through[kept]


def test_two_processes_do_not_take_the_same_run(tmp_path, data, plan_file):
    runs = {run.name: run for run in read_plan(plan_file).runs}
    one, other = (Workplace(data, tmp_path / "results", tmp_path / "work") for _ in range(2))
    scratch, pretrained = (runs[f"discs-1-2-{arm}-seed0"] for arm in ("scratch", "pretrained"))

    def done(run):
        return study._done(other, run, lambda figures: None, set())

    with one.claimed(one.name(scratch)) as mine:
        assert mine
        assert not done(scratch)
    with one.claimed(pretrained.stage_1(images.fingerprint(data, pretrained.dataset))):
        assert not done(pretrained), "one is pretraining what it starts from"
    assert not other.results.exists()
    assert done(scratch)
    assert not done(scratch), "it has a result"


def test_what_it_takes_is_told_and_nothing_is_left(tmp_path, command, capsys):
    assert command("--dry-run") == 0
    printed = capsys.readouterr().out
    assert "14 runs, of which 0 are done" in printed
    assert "central: 12 runs, 36 steps" in printed  # 4 of stage 1
    assert "length: 2 runs, 4 steps" in printed
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "results-work" / "runs").exists()


def test_data_that_is_not_there_is_named(command, data):
    (data / "discs").rename(data / "squares")
    with pytest.raises(SystemExit, match="has no discs/images"):
        command()


def made_up(plan_file, folder, left_out=()):
    """Results in which being pretrained adds 0.1, and each seed and image its own."""
    folder.mkdir()
    for run in read_plan(plan_file).runs:
        if run.name in left_out:
            continue
        gain = 0.1 if run.pretrain_steps else 0.0
        told = {
            **dict(zip(("dataset", "budget", "arm", "seed"), run.key, strict=True)),
            "settings": summary.digest(run.settings),
            "images": "x",
            "training_images": 4 // run.budget,
            "scores": {
                f"image {run.seed} {i}": {"dice": 0.5 + run.seed / 10 + i / 100 + gain}
                for i in range(4)
            },
        }
        (folder / f"{run.identity('x')}.json").write_text(json.dumps(told))


def test_differences_are_those_of_pairs(tmp_path, plan_file):
    plan = read_plan(plan_file)
    missing = ["discs-1-2-scratch-seed1", "discs-all-scratch-seed0", "discs-all-scratch-seed1"]
    made_up(plan_file, tmp_path / "results", missing)
    found = summary.read_results(tmp_path / "results", plan)
    rows = {(r.budget, r.arm.name): r for r in summary.summarise(plan, found.results, "dice")}
    pretrained = rows[2, "pretrained"]
    assert pretrained.mean == pytest.approx(0.665)
    # Only the seed that both have; a difference of means over all would be 0.15.
    assert pretrained.differences["scratch"].mean == pytest.approx(0.1)
    assert pretrained.differences["scratch"].images == 4
    assert pretrained.differences["scratch"].interval == pytest.approx((0.1, 0.1))
    assert pretrained.differences["scratch-as-long"].images == 8
    assert "scratch" not in rows[1, "pretrained"].differences
    text = summary.markdown(plan, list(rows.values()), "dice")
    assert "| 1/2 | 2 | scratch | incomplete: 1 of 2 |" in text
    assert "Without any result: discs-all-scratch." in text


def test_tables_and_plots_are_made_of_what_is_there(tmp_path, plan_file, monkeypatch):
    made_up(plan_file, tmp_path / "results", ["discs-1-2-scratch-seed1"])
    path = Path(study.__file__).with_name("table.py")
    spec = importlib.util.spec_from_file_location("table_of_study", path)
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    places = ("--results", tmp_path / "results", "--out", tmp_path / "out", "--plan", plan_file)
    monkeypatch.setattr("sys.argv", ["table.py", *map(str, places)])
    table.main()
    assert "incomplete: 1 of 2" in (tmp_path / "out" / "study.md").read_text()
    for name in ("labels.png", "pretraining.png"):
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.width > 400


def test_results_of_another_plan_are_left_out_and_told(tmp_path, plan_file):
    made_up(plan_file, tmp_path / "results")
    other = tmp_path / "other.toml"
    other.write_text(PLAN.replace("steps = 4", "steps = 6"))
    found = summary.read_results(tmp_path / "results", read_plan(other))
    assert len(found.results) == 10
    assert len(found.remarks) == 4
    assert "scratch-as-long" in found.remarks[0]
    with pytest.raises(InputError, match="no result of the plan"):
        summary.read_results(tmp_path, read_plan(other))


def test_results_on_other_images_do_not_mix(tmp_path, plan_file):
    made_up(plan_file, tmp_path / "results")
    path = next((tmp_path / "results").glob("*.json"))
    told = json.loads(path.read_text()) | {"images": "y"}
    path.with_stem(f"{path.stem}y").write_text(json.dumps(told))
    with pytest.raises(InputError, match="other images"):
        summary.read_results(tmp_path / "results", read_plan(plan_file))


def test_the_committed_plan_can_be_run():
    """Its settings are such as gsd takes, and each shorter stage 1 is kept by the longer."""
    plan = read_plan(Path(study.__file__).with_name("plan.toml"))
    from genselfdiff.training.settings.stage_configs import FinetuneConfig, PretrainConfig

    for run in plan.runs:
        FinetuneConfig(**run.arm.finetune)
        config = PretrainConfig(**run.arm.pretrain)
        assert config.decay == "none"
        assert config.warm_up == 0
    central = [run for run in plan.runs if run.part.startswith("central")]
    assert len(central) == 81
    steps = sum(run.arm.finetune["steps"] for run in central)
    pretrained = {run.stage_1(""): run.pretrain_steps for run in central if run.pretrain_steps}
    assert steps + sum(pretrained.values()) == 91_800
