"""Packages of BioImage.IO: what is in them, and what its own program says of them."""

import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from elsewhere import Darkness
from PIL import Image

from genselfdiff.errors import ModelError
from genselfdiff.models.model_file import load_model, save_model
from genselfdiff.models.model_info import ModelInfo

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture
def files(darkness: Callable[[str], Path]) -> dict[str, bytes]:
    with zipfile.ZipFile(darkness("zip")) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_both_weights_give_the_sample_output(files: dict[str, bytes]) -> None:
    taken, given = (np.load(io.BytesIO(files[f"test_{end}.npy"])) for end in ("input", "output"))
    assert (taken.shape, given.shape) == ((1, 3, 256, 256), (1, 2, 256, 256))
    assert 0.1 < given[:, 1].mean() < 0.9, "nothing to tell apart"
    with torch.inference_mode():
        found = torch.jit.load(io.BytesIO(files["weights.pt"]))(torch.from_numpy(taken))
    np.testing.assert_allclose(found.numpy(), given, atol=1e-6)
    session = onnxruntime.InferenceSession(files["weights.onnx"])
    np.testing.assert_allclose(session.run(None, {"images": taken})[0], given, atol=1e-4)


def test_the_description_is_that_of_the_model(files: dict[str, bytes]) -> None:
    told = json.loads(files["bioimageio.yaml"])

    def named(value: Any) -> list[dict[str, str]]:
        parts = value.values() if isinstance(value, dict) else value
        inner = [each for part in parts if isinstance(part, dict | list) for each in named(part)]
        return [value, *inner] if isinstance(value, dict) and "sha256" in value else inner

    for each in named(told):
        assert hashlib.sha256(files[each["source"]]).hexdigest() == each["sha256"]
    assert len(named(told)) == 5
    for end in (*told["inputs"], *told["outputs"]):
        places = [axis for axis in end["axes"] if axis["type"] == "space"]
        assert [(axis["scale"], axis["unit"]) for axis in places] == [(0.5, "micrometer")] * 2
    assert told["outputs"][0]["axes"][1]["channel_names"] == ["background", "nucleus"]
    assert told["license"] == "CC0-1.0"
    assert "Some Set, CC BY 4.0" in files["README.md"].decode()
    assert ModelInfo.from_json(files["gsd.json"]).mpp == 0.5
    assert Image.open(io.BytesIO(files["cover.png"])).size == (512, 256)


@pytest.mark.parametrize(
    ("architecture", "is_unet", "told"),
    [
        ({"name": "fastest", "width": 32}, True, "nobody's is told"),
        ({"name": "vit", "encoder": {"name": "UNI"}}, False, "- of the encoder, UNI: see its own"),
        ({}, False, "nobody's is told"),
    ],
)
def test_it_says_what_network_it_is(
    info: Callable[..., ModelInfo],
    tmp_path: Path,
    architecture: dict[str, Any],
    is_unet: bool,
    told: str,
) -> None:
    path = tmp_path / "model.zip"
    save_model(Darkness(), info(architecture=architecture), path)
    with zipfile.ZipFile(path) as archive:
        assert ("unet" in json.loads(archive.read("bioimageio.yaml"))["tags"]) == is_unet
        assert told in archive.read("README.md").decode()


def with_other_weights(stored: dict[str, bytes]) -> dict[str, bytes]:
    """What the files of weights would be, were its one weight another."""
    module = torch.jit.load(io.BytesIO(stored["weights.pt"]))
    for parameter in module.parameters():
        parameter.data += 0.1
    torchscript = io.BytesIO()
    torch.jit.save(module, torchscript)
    graph = onnx.load_from_string(stored["weights.onnx"])
    (weight,) = (each for each in graph.graph.initializer if "threshold" in each.name)
    weight.CopyFrom(onnx.numpy_helper.from_array(np.float32([0.1]), weight.name))
    return {"weights.pt": torchscript.getvalue(), "weights.onnx": graph.SerializeToString()}


ITS_PROGRAM = """
import json, socket, sys
from pathlib import Path

def refused(*_):
    raise OSError("no network")

socket.socket.connect = refused
from bioimageio import core

def told(path):
    summary = core.test_description(Path(path))
    return summary.status, [each.name for each in summary.details if each.status == "failed"]

print(json.dumps([told(path) for path in sys.argv[1:]]))
"""


def test_its_own_program_passes_it_offline_and_no_other_weights(
    darkness: Callable[[str], Path], files: dict[str, bytes], tmp_path: Path
) -> None:
    environment = Path(sys.prefix, "bioimageio")
    if not (environment / ".installed").exists():
        pytest.skip("`make test` could not install bioimageio.core, or was not asked")
    packages = [darkness("zip")]
    for name, data in with_other_weights(files).items():
        before, after = (hashlib.sha256(each).hexdigest() for each in (files[name], data))
        told = files["bioimageio.yaml"].decode().replace(before, after)
        packages.append(tmp_path / f"other_{name}.zip")
        with zipfile.ZipFile(packages[-1], "w") as archive:
            for each, content in {**files, name: data, "bioimageio.yaml": told}.items():
                archive.writestr(each, content)
    answer = subprocess.run(
        [environment / "bin" / "python", "-W", "ignore", "-c", ITS_PROGRAM, *packages],
        cwd=tmp_path,
        env={**os.environ, "BIOIMAGEIO_CACHE_PATH": str(tmp_path / "cache")},
        stdout=subprocess.PIPE,
        check=True,
    )
    reproduce = "Reproduce test outputs from test inputs"
    assert json.loads(answer.stdout) == [
        ["passed", []],
        ["valid-format", [f"{reproduce} (torchscript)"]],
        ["valid-format", [f"{reproduce} (onnx)"]],
    ]


def test_without_a_licence_there_is_none(info: Callable[..., ModelInfo], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="wants a licence"):
        save_model(Darkness(), info(licence=""), tmp_path / "model.zip")
    assert not list(tmp_path.iterdir())


def test_gsd_takes_no_package(darkness: Callable[[str], Path]) -> None:
    with pytest.raises(ModelError, match="a package for other programs"):
        load_model(darkness("zip"), "cpu")
