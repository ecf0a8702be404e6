"""Models and slides that cannot be used, or are slow."""

import json
import zipfile

import numpy as np
import pytest
import tifffile
import torch
from torch import nn

from genselfdiff.doctor import slide_checks
from genselfdiff.doctor.model_checks import look_at_model
from genselfdiff.doctor.slide_checks import slide_findings
from genselfdiff.models.model_file import LoadedModel
from genselfdiff.models.model_info import FORMAT_VERSION


def test_a_model_that_predicts(darkness_model, found):
    loaded, listed = look_at_model(str(darkness_model))
    findings = found(listed)
    assert loaded is not None
    assert {finding.grade for finding in listed} == {"ok"}
    assert "torchscript" in findings["model"].text
    assert "Mpx/s on" in findings["prediction"].text


def test_a_model_of_a_newer_version(darkness_model, tmp_path, found):
    newer = tmp_path / "newer.ts"
    with zipfile.ZipFile(darkness_model) as old, zipfile.ZipFile(newer, "w") as new:
        for item in old.infolist():
            content = old.read(item)
            if item.filename.endswith("extra/gsd.json"):
                told = json.loads(content) | {"format_version": FORMAT_VERSION + 1}
                content = json.dumps(told).encode()
            new.writestr(item, content)
    loaded, listed = look_at_model(str(newer))
    assert loaded is None
    assert found(listed)["model"].grade == "wrong"
    assert "update genselfdiff" in found(listed)["model"].text


@pytest.mark.parametrize("value", [0.4, float("nan")])
def test_a_model_that_gives_no_probabilities(value, monkeypatch, info, found, tmp_path):
    class Constant(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 2, *x.shape[2:]), value)

    (tmp_path / "model.ts").touch()
    loaded = LoadedModel(tmp_path / "model.ts", info(), torch.device("cpu"), Constant(), "0" * 64)
    _, listed = look_at_model(loaded)
    assert found(listed)["prediction"].grade == "wrong"


def test_a_slide_as_it_should_be(write_slide, picture, info, found):
    path = write_slide(picture(600, 700))
    findings = found(slide_findings(path, info()))
    assert {finding.grade for finding in findings.values()} == {"ok"}
    assert findings["sample"].text == "30 of 30 tiles read, all whole"
    assert findings["resolution"].text == "0.5 um/px"


def test_a_slide_that_does_not_say_its_resolution(write_slide, picture, info, found):
    path = write_slide(picture(200, 200), mpp=None)
    finding = found(slide_findings(path, info()))["resolution"]
    assert finding.grade == "wrong"
    assert "--mpp" in finding.text
    assert found(slide_findings(path, info(mpp=None)))["resolution"].grade == "ok"
    assert found(slide_findings(path, None))["resolution"].grade == "wrong"


def test_a_slide_with_damaged_tiles(write_slide, picture, found):
    path = write_slide(picture(600, 700))
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        begin, length = page.dataoffsets[7], page.databytecounts[7]
    with path.open("r+b") as stream:
        stream.seek(begin)
        stream.write(b"\xff" * length)
    finding = found(slide_findings(path, None))["sample"]
    assert finding.grade == "wrong"
    assert finding.text.startswith("30 of 30 tiles read, 1 not readable; first: ")


def test_a_slide_that_does_not_open(tmp_path, found):
    (tmp_path / "a.svs").write_bytes(b"II*\0damaged")
    assert found(slide_findings(tmp_path / "a.svs", None))["slide"].grade == "wrong"
    assert found(slide_findings(tmp_path / "b.svs", None))["slide"].grade == "wrong"


def test_a_slide_that_is_slow_to_read(tmp_path, monkeypatch, found):
    image = np.zeros((512, 512, 3), np.uint8)
    tifffile.imwrite(tmp_path / "strip.tif", image, photometric="rgb", rowsperstrip=512)
    monkeypatch.setattr(slide_checks, "_LARGE_PIECE", 2**17)
    monkeypatch.setattr(slide_checks, "_LARGE_SLIDE", 2**17)
    monkeypatch.setattr(slide_checks, "_SLOW", float("inf"))
    findings = found(slide_findings(tmp_path / "strip.tif", None))
    slow = {subject for subject, finding in findings.items() if finding.grade == "warning"}
    assert slow == {"tiles", "levels", "reading"}
