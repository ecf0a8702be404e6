"""``gsd models``, and names of models where commands take one."""

import json

import numpy as np
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result
from PIL import Image

from genselfdiff.models.model_file import load_model
from genselfdiff.models.shipped import catalogue
from gsd.main import main


def gsd(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def fields(tmp_path, monkeypatch):
    """The current folder, with one image at the model's resolution and its mask."""
    monkeypatch.chdir(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    mask = np.zeros((96, 96), np.uint8)
    mask[20:40, 20:40] = 1
    for name, pixels in (("images", image), ("masks", mask)):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "a.png")


def test_models_are_listed(ship):
    assert gsd("models").stdout == "this installation of gsd came without models\n"
    ship()
    done = gsd("models")
    assert done.exit_code == 0, done.output
    *_, line = done.stdout.splitlines()
    assert line.startswith("nuclei ")
    assert line.endswith("0.5  background, nucleus  CC-BY-4.0")
    for damage in (b"", b"\xff" * 20, b"\2\0\0\0\0\0\0\0{}"):
        catalogue.weights_file("nuclei").write_bytes(damage)
        told = gsd("models").stderr
        assert told == "Error: nuclei: damaged weights: no gsd.json is in them: install gsd again\n"


def test_a_card_is_shown(ship):
    ship(instances=True)
    done = gsd("models", "show", "nuclei")
    assert done.exit_code == 0, done.output
    for told in (
        "gives: background, nucleus, cores of objects",
        "network: tiny, width 8, 0.2 M parameters",
        "licence: CC-BY-4.0",
        "Some Set, CC BY 4.0",
        "--foreground --instances --mpp 0.5 --init nuclei",
    ):
        assert told in done.stdout
    wrong = gsd("models", "show", "glands")
    assert wrong.exit_code == 1
    assert wrong.stderr == "Error: no model 'glands' comes with gsd; there are: nuclei\n"


def test_figures_of_a_card_are_shown_and_their_lack_is(ship):
    ship()
    path = catalogue.FOLDER / "nuclei.json"
    card = json.loads(path.read_text()) | {"evaluations": [], "speeds": [], "limits": []}
    path.write_text(json.dumps(card))
    assert gsd("models", "show", "nuclei").stdout.count("not measured yet") == 2
    whole = {"name": "MoNuSeg", "images": 30, "scores": {"Dice": [0.8, 0.78, 0.82], "PQ": [0.5]}}
    organ = {"name": "Liver", "images": 6, "scores": {"Dice": [0.7, 0.6, 0.75]}}
    evaluation = {"about": "external", "command": "gsd eval", "all": whole, "groups": [organ]}
    speed = {"machine": "2 cores", "what": "all of it", "megapixels_per_second": 1.5}
    card |= {"evaluations": [evaluation], "speeds": [speed], "limits": ["ink"]}
    path.write_text(json.dumps(card))
    lines = [line.split() for line in gsd("models", "show", "nuclei").stdout.splitlines()]
    assert ["all", "30", "0.800", "(0.780", "to", "0.820)", "0.500"] in lines
    assert ["Liver", "6", "0.700", "(0.600", "to", "0.750)", "-"] in lines
    assert ["-", "1.5", "Mpx/s:", "all", "of", "it;", "2", "cores"] in lines
    assert ["-", "ink"] in lines


def test_without_a_model_the_shipped_one_segments(fields, ship, caplog):
    ship()
    command = ("segment", "images/a.png", "--mpp", "0.5", "--device", "cpu")
    done = gsd(*command, "-o", "mask.tif")
    assert done.exit_code == 0, done.output
    assert "model: nuclei, shipped with gsd; another with --model or GSD_MODEL" in caplog.messages
    again = gsd(*command, "-o", "mask.tif", "--model", "nuclei")
    assert "finished before by the same slide, model and settings" in again.stdout
    file = gsd(*command, "-o", "file.tif", "--model", "./nuclei")
    assert file.stderr == (
        "Error: nuclei: there is no such model file; 'nuclei' is a model that comes with gsd\n"
    )


def test_a_shipped_model_is_evaluated_and_exported_by_name(fields, ship):
    weights = ship()
    options = ("--images", "images", "--masks", "masks", "--mpp", "0.5", "--device", "cpu")
    done = gsd("evaluate", "nuclei", *options, "--json", "scores.json")
    assert done.exit_code == 0, done.output
    with open("scores.json") as file:
        assert json.load(file)["model"] == "nuclei"
    over = gsd("evaluate", "nuclei", *options, "--json", weights, "--overwrite")
    assert "is an input of this run" in over.stderr
    assert gsd("export", "nuclei", "-o", weights, "--overwrite").exit_code == 1

    done = gsd("export", "nuclei", "-o", "model.ts", "--portable")
    assert done.exit_code == 0, done.output
    assert load_model("model.ts", "cpu").info.licence == "CC-BY-4.0"
    relicensed = gsd("export", "nuclei", "-o", "other.ts", "--licence", "mine")
    assert "nuclei: has its own licence" in relicensed.stderr


@pytest.mark.parametrize(
    "words",
    [["segment", "--model"], ["evaluate"], ["models", "show"], ["train", "finetune", "--init"]],
)
def test_names_are_completed(ship, words):
    ship()
    found = ShellComplete(main, {}, "gsd", "_GSD_COMPLETE").get_completions(words, "nuc")
    assert "nuclei" in [item.value for item in found]
