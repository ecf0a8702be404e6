"""Models as folders, and on the Hugging Face Hub: pushed, pulled, used, and looked at first."""

import dataclasses
import json
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from hub_server import TOKEN, serving
from safetensors import safe_open
from safetensors.torch import save_file

from genselfdiff.errors import InputError, ModelError, OutputError
from genselfdiff.models.model_file import load_model
from genselfdiff.models.published.hub import hub_address
from genselfdiff.models.published.model_folder import write_model_folder
from genselfdiff.models.published.readme import readme
from genselfdiff.models.registry import create_model
from genselfdiff.models.shipped import catalogue
from genselfdiff.models.shipped.weights import read_weights
from genselfdiff.storage.places import Url
from genselfdiff.training.export import export, pull, push
from gsd.main import main


def gsd(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def folder(ship, tmp_path):
    """The shipped model as a folder."""
    ship(instances=True)
    push("nuclei", tmp_path / "passed on")
    return tmp_path / "passed on"


def test_a_folder_is_the_model_that_was_pushed(folder, tmp_path):
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "gsd.json",
        "model.safetensors",
    ]
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata()["gsd.json"] + "\n" == (folder / "gsd.json").read_text()
    done = gsd("pull", folder, "-o", tmp_path / "model.ts")
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith("model.ts: background, nucleus at 0.5 um/px\n")
    images = torch.randint(0, 256, (2, 3, 50, 64), dtype=torch.uint8)
    wanted = load_model("nuclei", "cpu")
    for model in (load_model(folder, "cpu"), load_model(tmp_path / "model.ts", "cpu")):
        assert model.info == wanted.info
        assert torch.equal(model(images), wanted(images))
    pull(folder, tmp_path / "copy")
    for path in folder.iterdir():
        assert (tmp_path / "copy" / path.name).read_bytes() == path.read_bytes()


def test_weights_that_are_not_in_half_precision_stay_as_they_are(folder, tmp_path, ship):
    info = dataclasses.replace(read_weights("nuclei").info, instances=False)
    network = create_model("tiny", out_channels=2, width=8)
    write_model_folder(tmp_path / "float32", network.state_dict(), info)
    export(tmp_path / "float32", tmp_path / "a.ts")
    with safe_open(tmp_path / "float32/model.safetensors", "pt") as file:
        for key, value in network.state_dict().items():
            assert torch.equal(file.get_tensor(key), value), key
    with pytest.raises(InputError, match="needs a licence: --licence CC-BY-4"):
        write_model_folder(
            tmp_path / "c", network.state_dict(), dataclasses.replace(info, licence="")
        )


def test_the_page_says_to_the_hub_what_it_reads(folder):
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard.load(folder / "README.md")
    shipped = catalogue.read_card("nuclei")
    assert card.data.license == "cc-by-4.0"
    assert card.data.library_name == "genselfdiff"
    assert card.data.datasets == ["Some Set"]
    assert card.data.metrics == ["dice", "aji", "pq"]
    found = {
        (each.dataset_name, each.metric_name): each.metric_value for each in card.data.eval_results
    }
    assert found == {
        (each.all.name, metric): score.mean
        for each in shipped.evaluations
        for metric, score in each.all.scores.items()
    }
    for told in (*shipped.limits, shipped.finetuning, "Some Set, CC BY 4.0"):
        assert told.split("*")[0][:40] in card.text


def test_odd_names_stay_names_on_the_page(folder):
    hub = pytest.importorskip("huggingface_hub")
    info = dataclasses.replace(
        read_weights("nuclei").info,
        classes=("background", "a|b\n---\nlicense: mit <script>"),
        licence="Mine: none\n---",
        attributions=('A "set": odd\n---, CC0',),
    )
    card = hub.ModelCard(readme("x\n---", info, None))
    assert (card.data.license, card.data.license_name) == ("other", r"Mine: none\x0a---")
    assert card.data.datasets == [r'A "set": odd\x0a---']
    assert "\n---" not in card.text
    assert "<script>" not in card.text.replace(r"\<script\>", "")


def test_a_folder_is_looked_at(folder, tmp_path):
    weights, told = folder / "model.safetensors", folder / "gsd.json"
    content, described = weights.read_bytes(), told.read_text()

    def refused(match):
        with pytest.raises(ModelError, match=match):
            load_model(folder)
        for output in ("out.ts", "out"):
            with pytest.raises(ModelError, match=match):
                pull(folder, tmp_path / output)
        assert not (tmp_path / "out.ts").exists()
        assert not (tmp_path / "out").exists()

    told.write_text(described.replace('"tile_size": 64', '"tile_size": 128'))
    refused(r"passed on: its gsd\.json is not that of model\.safetensors: push the model once")
    told.write_text("{")
    refused(r"gsd\.json: is not JSON")
    told.write_text(described)
    weights.write_bytes(pickle.dumps({"a": os.system}))
    refused("damaged weights")
    weights.write_bytes(content[:-10])
    refused("damaged weights")
    state = {"net.a": torch.zeros(3)}
    save_file(state, weights, {"gsd.json": described.strip()})
    refused("the weights are fewer than those of its architecture")
    wide = described.replace('"width": 8\n  },\n  "training"', '"width": 80000\n  },\n  "training"')
    assert wide != described
    told.write_text(wide)
    save_file(state, weights, {"gsd.json": wide.strip()})
    refused("the weights are fewer")
    told.unlink()
    with pytest.raises(ModelError, match=r"no folder of 'gsd push': it has no model\.safetensors"):
        pull(folder, tmp_path / "out.ts")


def test_what_is_there_is_not_replaced_unasked(folder, tmp_path):
    (folder / "README.md").write_text("mine")
    with pytest.raises(OutputError, match=r"safetensors: exists already"):
        push("nuclei", folder)
    assert (folder / "README.md").read_text() == "mine"
    (folder / "notes.txt").write_text("mine")
    push("nuclei", folder, overwrite=True)
    assert (folder / "README.md").read_text() != "mine"
    assert (folder / "notes.txt").exists()
    with pytest.raises(InputError, match="is such a folder already"):
        push(folder, tmp_path / "again")
    with pytest.raises(ModelError, match="has its own licence"):
        push(folder, Url("hf://user/model"), licence="MIT")


def test_what_cannot_be_pushed_is_said_with_what_can(ship, tmp_path, monkeypatch):
    ship()
    monkeypatch.chdir(tmp_path)
    export("nuclei", "model.ts")
    Path("notes").touch()
    for model, told in (
        (
            "nope",
            "nope: there is no such folder: give a run folder of 'gsd train finetune', a name",
        ),
        ("notes", "notes: is a file: give a run folder"),
        (
            "model.ts",
            "model.ts: a model file has no weights to pass on: give the folder of the run",
        ),
    ):
        refused = gsd("push", model, "out")
        assert refused.exit_code == 1
        assert refused.stderr.startswith(f"Error: {told}")
        assert not Path("out").exists()
    done = gsd("push", "nuclei", "my models")
    assert done.stdout == "pushed to my models\nnext: gsd pull 'my models' -o model.ts\n"


@pytest.mark.parametrize(
    ("output", "told"), [("m.ts", "export nuclei -o m.ts"), ("m", "push nuclei m")]
)
def test_a_shipped_model_is_not_pulled(ship, tmp_path, monkeypatch, output, told):
    ship()
    monkeypatch.chdir(tmp_path)
    refused = gsd("pull", "nuclei", "-o", output)
    assert refused.stderr == f"Error: nuclei: comes with gsd: gsd {told}\n"
    assert gsd(*told.split()).exit_code == 0
    missing = gsd("pull", "nope", "-o", output)
    assert missing.stderr == (
        "Error: nope: there is no such folder: give one of 'gsd push', or hf://USER/NAME\n"
    )


def test_names_that_say_another_thing_than_is_written(folder, tmp_path):
    refused = gsd("push", "nuclei", tmp_path / "README.md")
    assert "README.md: a model is pushed into a folder" in refused.stderr
    assert "(.ts, .onnx, .pt2, .zip)" in refused.stderr
    assert gsd("push", "nuclei", tmp_path / "v1.2").exit_code == 0
    for command in (["pull", folder], ["export", "nuclei"]):
        refused = gsd(*command, "-o", tmp_path / "y.tsx")
        assert refused.exit_code == 1
        assert "y.tsx: no ending of model files: they are called .ts, .onnx, .pt2" in refused.stderr
        assert not (tmp_path / "y.tsx").exists()
    assert gsd("pull", folder, "-o", tmp_path / "y.tsx", "--format", "torchscript").exit_code == 0


def test_a_hub_out_of_reach_is_said(folder):
    pytest.importorskip("huggingface_hub")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # where nobody listens afterwards
    environment = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{port}", "NO_PROXY": "*"}
    command = [str(Path(sys.executable).with_name("gsd")), "push", str(folder), "hf://user/model"]
    refused = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    assert refused.stderr == (
        "Error: hf://user/model: the Hub cannot be reached: Connection refused\n"
    )


@pytest.mark.parametrize("address", ["hf://user", "hf://user/a/b", "hf://user/a b", "hf://../a"])
def test_addresses_that_are_none_of_the_hub(folder, address):
    with pytest.raises(InputError, match="give hf://USER/NAME"):
        hub_address(Url(address))
    assert gsd("pull", "s3://user/name", "-o", "x.ts").stderr.startswith("Error: s3://user/name: ")
    with pytest.raises(ModelError, match=r"'gsd pull hf://user/name -o model\.ts' fetches it"):
        load_model(Url("hf://user/name"))


def test_without_the_library(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"not installed: pip install 'genselfdiff\[hub\]'"):
        pull(Url("hf://user/model"), tmp_path / "model.ts")


def test_there_and_back_through_the_hub(folder, tmp_path):
    pytest.importorskip("huggingface_hub")
    (folder / "README.md").write_text("---\nlicense: mit\n---\nMine")
    (folder / "notes.txt").write_text("stays here")

    def run(*arguments, token=TOKEN):
        environment = {
            **os.environ,
            **{"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_TOKEN": token},
            **{"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*"},
        }
        command = [str(Path(sys.executable).with_name("gsd")), *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=120, check=False
        )

    with serving() as hub:
        refused = run("push", folder, "hf://user/model", token="hf_wrong")
        assert refused.returncode == 1
        assert refused.stderr.startswith("Error: hf://user/model: ")
        assert len(refused.stderr.splitlines()) == 1
        assert "hf_wrong" not in refused.stderr
        done = run("push", folder, "hf://user/model", "--private")
        assert done.returncode == 0, done.stderr
        assert TOKEN not in done.stdout + done.stderr
        assert hub.created.get("private") or hub.created["visibility"] == "private"
        assert hub.files == {
            name: (folder / name).read_bytes()
            for name in ("model.safetensors", "gsd.json", "README.md")
        }
        hub.files["evil.pkl"] = pickle.dumps(os.system)
        done = run("pull", "hf://user/model@main", "-o", tmp_path / "model.ts")
        assert done.returncode == 0, done.stderr
        assert not [line for line in hub.asked if line.startswith("GET") and "evil" in line]
        gone = run("pull", "hf://user/gone", "-o", tmp_path / "gone.ts")
        assert gone.returncode == 1
        assert len(gone.stderr.splitlines()) == 1
    images = np.random.default_rng(0).integers(0, 256, (50, 64, 3), np.uint8)
    pulled = load_model(tmp_path / "model.ts", "cpu")(images)
    np.testing.assert_array_equal(pulled, load_model(folder, "cpu")(images))
    assert json.loads((folder / "gsd.json").read_text())["licence"] == "CC-BY-4.0"
