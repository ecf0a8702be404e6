"""Slides segmented with a model in each format."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

import genselfdiff
from genselfdiff.errors import InputError
from genselfdiff.inference.predictor import Predictor
from genselfdiff.models import model_file
from genselfdiff.models.model_file import load_model

Written = Callable[[str], Path]


@pytest.fixture(params=["onnx", "pt2"])
def model(request: pytest.FixtureRequest, darkness: Written) -> Path:
    if request.param == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    return darkness(request.param)


@pytest.mark.parametrize("tta", [1, 8])
def test_a_slide_gets_the_mask_that_torchscript_gives_it(
    model: Path,
    darkness: Written,
    picture: Callable[..., np.ndarray],
    write_slide: Callable[..., Path],
    tmp_path: Path,
    tta: int,
) -> None:
    slide = write_slide(picture(200, 300))
    masks = []
    for each in (darkness("ts"), model):
        output = tmp_path / f"{each.suffix[1:]}.ome.tif"
        genselfdiff.segment(slide, output, each, device="cpu", precision="float32", tta=tta)
        masks.append(tifffile.imread(output, level=0))
    assert 0.1 < (masks[0] == 1).mean() < 0.9
    np.testing.assert_array_equal(*masks)


def test_a_graph_computes_in_float32_on_the_cpu(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_model(model)
    assert loaded.device.type == "cpu"
    assert Predictor(loaded, "auto").precision == "float32"
    with pytest.raises(InputError, match="in float32 alone"):
        Predictor(loaded, "bfloat16")
    monkeypatch.setattr(model_file, "choose_devices", lambda _: (torch.device("cuda"),))
    with pytest.raises(InputError, match="runs on the CPU, not on cuda"):
        load_model(model, "cuda")
