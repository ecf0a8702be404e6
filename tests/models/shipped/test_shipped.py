"""Models that come with gsd: by name, as quick and as exact as files, with a card."""

import copy
import json
import logging

import numpy as np
import pytest
import torch

import genselfdiff
from genselfdiff.errors import InputError, ModelError
from genselfdiff.masks import MaskReader
from genselfdiff.models.model_file import find_model, load_model
from genselfdiff.models.model_info import ModelInfo
from genselfdiff.models.registry import create_model
from genselfdiff.models.shipped import catalogue
from genselfdiff.models.shipped.card import ModelCard, Score
from genselfdiff.models.shipped.weights import read_weights, write_weights
from genselfdiff.training.export import export
from genselfdiff.training.initial_weights import origin_of
from genselfdiff.training.settings.stage_configs import FinetuneConfig

HERE = catalogue.FOLDER


@pytest.mark.parametrize("instances", [False, True])
def test_a_shipped_model_gives_what_its_exported_file_gives(tmp_path, ship, instances):
    ship(instances=instances)
    model = load_model("nuclei", "cpu")
    info = export("nuclei", tmp_path / "model.ts")
    file = load_model(tmp_path / "model.ts", "cpu")
    assert model.info == info == file.info
    images = torch.randint(0, 256, (2, 3, 50, 64), dtype=torch.uint8)
    assert torch.equal(model(images), file(images))
    half, other = (copy.deepcopy(m.module).to(torch.bfloat16) for m in (model, file))
    with torch.inference_mode():
        assert torch.equal(half(images), other(images))


def test_weights_are_those_of_the_network_rounded_to_float16(ship):
    ship()
    info = read_weights("nuclei").info
    network = create_model("tiny", out_channels=2, width=8)
    write_weights(network.state_dict(), info, catalogue.weights_file("other"))
    weights = read_weights("other")
    assert catalogue.names() == ("nuclei", "other")
    assert weights.parameters == sum(p.numel() for p in network.parameters())
    assert weights.digest != read_weights("nuclei").digest
    for key, value in weights.network().state_dict().items():
        assert torch.equal(value, network.state_dict()[key].half().float()), key


def test_a_file_of_the_same_name_is_reached_by_its_path(tmp_path, ship, monkeypatch, caplog):
    ship()
    export("nuclei", tmp_path / "nuclei")
    monkeypatch.chdir(tmp_path)
    model = load_model("nuclei", "cpu")
    assert (model.source, model.path) == ("nuclei", catalogue.weights_file("nuclei"))
    assert "nuclei: the model shipped with gsd; what is called so here is ./nuclei" in caplog.text
    for named in ("./nuclei", tmp_path / "nuclei"):
        file = load_model(named, "cpu")
        assert file.path.samefile(tmp_path / "nuclei")
        assert file.digest != model.digest


def test_without_a_name_it_is_used_and_said(
    tmp_path, ship, monkeypatch, caplog, picture, write_slide
):
    caplog.set_level(logging.INFO, "genselfdiff")
    ship()
    slide = write_slide(picture(64, 64))
    genselfdiff.segment(slide, tmp_path / "mask.tif", device="cpu", tissue=False)
    assert "model: nuclei, shipped with gsd; another with --model or GSD_MODEL" in caplog.messages
    with MaskReader(tmp_path / "mask.tif") as mask:
        assert mask.description["job"]["model"] == f"nuclei {load_model('nuclei', 'cpu').digest}"
    # The same work, however the model was named.
    monkeypatch.setenv("GSD_MODEL", "nuclei")
    caplog.clear()
    again = genselfdiff.segment(slide, tmp_path / "mask.tif", device="cpu", tissue=False)
    assert again.finished_before
    assert not [line for line in caplog.messages if "shipped with gsd" in line]
    monkeypatch.setenv("GSD_MODEL", str(tmp_path / "gone.ts"))
    with pytest.raises(ModelError, match=r"gone\.ts: there is no such model file"):
        find_model()


def test_a_damaged_installation_is_told(ship):
    path = ship()
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(ModelError, match=r"nuclei: damaged weights: .*: install gsd again"):
        load_model("nuclei", "cpu")
    path.write_bytes(content.replace(b'\\"width\\": 8', b'\\"width\\": 9'))
    with pytest.raises(ModelError, match=r"nuclei: gsd\.json names no architecture of gsd"):
        load_model("nuclei", "cpu")
    path.write_bytes(content.replace(b'\\"width\\": 8', b'\\"width\\":16'))
    with pytest.raises(ModelError, match="nuclei: the weights are fewer than those"):
        load_model("nuclei", "cpu")


def test_weights_that_do_not_fit_the_wheel_or_float16_are_refused(tmp_path, ship, monkeypatch):
    ship()
    weights = read_weights("nuclei")
    key = "net.init_conv.weight"
    large = weights.state | {key: torch.full_like(weights.state[key], 70000.0)}
    with pytest.raises(ModelError, match=f"{key} holds numbers that float16 has not"):
        write_weights(large, weights.info, tmp_path / "x.safetensors")
    monkeypatch.setattr("genselfdiff.models.shipped.weights.LARGEST", 1000)
    with pytest.raises(ModelError, match="more than 1,000"):
        write_weights(weights.state, weights.info, tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


def test_attributions_are_in_the_file_of_a_model(info):
    given = info(attributions=("A Set, CC BY 4.0",))
    assert ModelInfo.from_json(given.to_json()) == given
    assert json.loads(given.to_json())["attributions"] == ["A Set, CC BY 4.0"]
    assert json.loads(info().to_json())["format_version"] == 1, "earlier versions read it too"
    for wrong in (["A Set"], ("",), (3,)):
        with pytest.raises(ModelError, match="'attributions' must be a list of texts"):
            info(attributions=wrong)


def card(**changes: object) -> str:
    scores = {"name": "MoNuSeg", "images": 30, "scores": {"Dice": [0.8, 0.7, 0.9], "PQ": [0.5]}}
    evaluation = {"about": "kept back", "command": "gsd ...", "all": scores, "groups": [scores]}
    parts: dict[str, object] = {
        **{"format": "genselfdiff-card", "format_version": 1},
        **{"summary": "nuclei", "purpose": "to find them", "training": "once", "limits": ["ink"]},
        "evaluations": [evaluation],
        "speeds": [{"machine": "2 cores", "what": "a slide", "megapixels_per_second": 1.5}],
        "finetuning": "with a few fields",
    }
    return json.dumps({k: v for k, v in (parts | changes).items() if v is not None})


def test_a_card_is_read(tmp_path):
    read = ModelCard.from_json(card(), tmp_path)
    (evaluation,) = read.evaluations
    assert evaluation.all.scores == {"Dice": Score(0.8, (0.7, 0.9)), "PQ": Score(0.5, None)}
    assert evaluation.groups == (evaluation.all,)
    assert read.speeds[0].megapixels_per_second == 1.5


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"format": "x"}, "is no genselfdiff-card"),
        ({"format_version": 2}, "has format 2, this version reads 1"),
        ({"limits": None}, "'limits' is missing"),
        ({"colour": "red"}, "'colour' is unknown"),
        ({"summary": ""}, "summary: must be a text"),
        ({"limits": "ink"}, "limits: must be a list"),
        ({"limits": [3]}, r"limits\[0\]: must be a text"),
        ({"speeds": [{"machine": "a", "what": "b", "megapixels_per_second": -1}]}, "above 0"),
        ({"evaluations": [[]]}, r"evaluations\[0\]: must be an object"),
    ],
)
def test_a_card_that_is_none_is_told_by_its_part(tmp_path, changes, told):
    with pytest.raises(InputError, match=told):
        ModelCard.from_json(card(**changes), tmp_path)


@pytest.mark.parametrize("score", [[0.8, 0.9, 1.0], [0.8, 0.7], [2], ["0.8"], 0.8, [True]])
def test_a_score_that_is_none_is_told(tmp_path, score):
    scores = {"name": "MoNuSeg", "images": 30, "scores": {"Dice": score}}
    given = {"about": "kept back", "command": "gsd ...", "all": scores, "groups": []}
    with pytest.raises(InputError, match=r"evaluations\[0\]\.all\.scores\.Dice"):
        ModelCard.from_json(card(evaluations=[given]), tmp_path)


@pytest.mark.parametrize("path", sorted(HERE.glob("*.json")), ids=lambda path: path.stem)
def test_every_card_is_one(path):
    ModelCard.from_json(path.read_text(encoding="utf-8"), path)


@pytest.mark.parametrize("name", catalogue.names())
def test_what_comes_with_gsd_is_whole(name):
    weights, card = read_weights(name), catalogue.read_card(name)
    assert card.summary
    assert weights.parameters <= 10_000_000
    assert catalogue.weights_file(name).stat().st_size <= 16_000_000
    assert weights.info.licence
    assert weights.info.attributions
    origin = origin_of(FinetuneConfig(init=name))
    assert isinstance(origin, FinetuneConfig)
    assert (origin.resample_to, origin.classes) == (weights.info.mpp, weights.info.classes)
    images = torch.from_numpy(np.full((1, 3, 40, 64), 230, np.uint8))
    assert load_model(name, "cpu")(images).shape == (1, weights.info.channels, 40, 64)
