"""Networks that know nothing of gsd become models for slides."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from genselfdiff.errors import ModelError, OutputError
from genselfdiff.masks import MaskReader
from genselfdiff.models.model_file import load_model
from genselfdiff.models.wrapping import wrap_model
from genselfdiff.segmenting.one_slide import segment
from gsd.main import main

CLASSES = ("background", "nucleus")


class Dark(nn.Module):
    """Class 1 where the green channel, of 0..1, is below a half; ``forward(x)`` and no more."""

    def __init__(self, probabilities: bool = False) -> None:
        super().__init__()
        self.weights = nn.Conv2d(3, 2, 1)
        self.probabilities = probabilities
        with torch.no_grad():
            self.weights.weight.zero_()
            self.weights.weight[:, 1, 0, 0] = torch.tensor([40.0, -40.0])
            self.weights.bias.copy_(torch.tensor([-20.0, 20.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.weights(x)
        if self.probabilities:
            y = y.softmax(1)
        return y


@pytest.fixture
def image(picture: Callable[..., NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return picture(96, 128)


def labels_in(path: Path) -> NDArray[np.uint8]:
    with MaskReader(path) as mask:
        return np.concatenate(list(mask.bands()))[: mask.height, : mask.width]


@pytest.mark.parametrize("probabilities", [False, True])
def test_a_module_segments_a_slide(
    tmp_path: Path, image: NDArray[np.uint8], probabilities: bool
) -> None:
    network = Dark(probabilities).train()
    model = wrap_model(network, classes=CLASSES, mpp=0.5, tile_size=64, device="cpu")
    assert network.training, "left as it is"
    expected = image[..., 1] < 127.5
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    with torch.inference_mode():
        share = network.weights(pixels / 255).softmax(1)
    torch.testing.assert_close(model(pixels), share, atol=1e-5, rtol=0)
    Image.fromarray(image).save(tmp_path / "slide.png")
    segment(tmp_path / "slide.png", tmp_path / "m.tif", model, mpp=0.5, tissue=False)
    np.testing.assert_array_equal(labels_in(tmp_path / "m.tif"), expected)


def test_a_torchscript_file_becomes_a_model_file(tmp_path: Path, image: NDArray[np.uint8]) -> None:
    torch.jit.script(Dark()).save(str(tmp_path / "plain.ts"))
    done = CliRunner().invoke(
        main,
        [
            *("wrap", str(tmp_path / "plain.ts"), "--classes", "background,nucleus"),
            *("--mpp", "0.5", "--tile-size", "64", "-o", str(tmp_path / "model.ts")),
        ],
    )
    assert done.exit_code == 0, done.output
    model = load_model(tmp_path / "model.ts", "cpu")
    assert (model.info.classes, model.info.mpp) == (CLASSES, 0.5)
    Image.fromarray(image).save(tmp_path / "slide.png")
    segment(tmp_path / "slide.png", tmp_path / "m.tif", model, mpp=0.5, tissue=False)
    np.testing.assert_array_equal(labels_in(tmp_path / "m.tif"), image[..., 1] < 127.5)
    with pytest.raises(ModelError, match=r"model\.ts: is a model of gsd already"):
        wrap_model(tmp_path / "model.ts", classes=CLASSES, mpp=0.5)
    with pytest.raises(OutputError, match="exists"):
        wrap_model(Dark(), classes=CLASSES, mpp=0.5, output=tmp_path / "model.ts")


class Odd(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind == "smaller":
            return x[:, :2, ::4, ::4]
        if self.kind == "channels":
            return x
        if self.kind == "infinite":
            return x[:, :2] / 0
        raise ValueError("wants 17 channels")


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("smaller", r"network: gives shape \(1, 2, 16, 16\) for 1 image of 64 x 64 pixels"),
        ("channels", "gives 3 channels, but 2 classes are named"),
        ("infinite", "infinite or none"),
        ("fails", "fails on a tile of 64 pixels: wants 17 channels"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(kind: str, told: str) -> None:
    with pytest.raises(ModelError, match=told) as caught:
        wrap_model(Odd(kind), classes=CLASSES, mpp=0.5, tile_size=64)
    assert "\n" not in str(caught.value)


def test_what_is_no_torchscript(tmp_path: Path) -> None:
    (tmp_path / "x.ts").write_bytes(b"no archive")
    with pytest.raises(ModelError, match=r"x\.ts: not a model file"):
        wrap_model(tmp_path / "x.ts", classes=CLASSES, mpp=0.5)
    with pytest.raises(ModelError, match="there is no such file"):
        wrap_model(tmp_path / "none.ts", classes=CLASSES, mpp=0.5)
