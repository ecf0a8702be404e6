"""Packages of BioImage.IO: what is in them, and what its own program says of them."""

import hashlib
import io
import json
import socket
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


def test_its_own_program_passes_it_offline(
    darkness: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    core = pytest.importorskip("bioimageio.core")

    def refused(*_: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refused)
    summary = core.test_description(darkness("zip"))
    assert summary.status == "passed", summary.format()


def test_without_a_licence_there_is_none(info: Callable[..., ModelInfo], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="wants a licence"):
        save_model(Darkness(), info(licence=""), tmp_path / "model.zip")
    assert not list(tmp_path.iterdir())


def test_gsd_takes_no_package(darkness: Callable[[str], Path]) -> None:
    with pytest.raises(ModelError, match="a package for other programs"):
        load_model(darkness("zip"), "cpu")
