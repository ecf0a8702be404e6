"""Weights of other people's networks become models: plain U-Nets, segmentation_models_pytorch."""

import pickle
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from genselfdiff.errors import InputError, ModelError
from genselfdiff.models.checkpoints.state_dicts import read_state_dict
from genselfdiff.models.model_file import load_model
from genselfdiff.models.wrapping import wrap_model
from gsd.main import main

CLASSES = ("background", "nucleus")
WIDTHS = (8, 12, 16, 20, 24)


def entries_of(transposed, outputs=2, bias=False):
    """Drawn weights of a U-Net, by the names that its entries have."""
    generator = torch.Generator().manual_seed(0)
    state = {}

    def drawn(*shape):
        return torch.randn(shape, generator=generator) * 0.3

    def double(prefix, inputs, middle, out):
        for place, (a, b) in ((0, (inputs, middle)), (3, (middle, out))):
            state[f"{prefix}.double_conv.{place}.weight"] = drawn(b, a, 3, 3)
            if bias:
                state[f"{prefix}.double_conv.{place}.bias"] = drawn(b)
            norm = f"{prefix}.double_conv.{place + 1}"
            state[f"{norm}.weight"], state[f"{norm}.bias"] = 1 + drawn(b), drawn(b)
            state[f"{norm}.running_mean"], state[f"{norm}.running_var"] = (
                drawn(b),
                1 + drawn(b) ** 2,
            )
            state[f"{norm}.num_batches_tracked"] = torch.tensor(7)

    w = WIDTHS
    double("inc", 3, w[0], w[0])
    for level in range(1, 5):
        double(f"down{level}.maxpool_conv.1", w[level - 1], w[level], w[level])
    below = w[4]
    for level, beside in zip(range(1, 5), reversed(w[:4]), strict=True):
        enlarged = beside if transposed else below
        if transposed:
            state[f"up{level}.up.weight"] = drawn(below, beside, 2, 2)
            state[f"up{level}.up.bias"] = drawn(beside)
        double(f"up{level}.conv", enlarged + beside, beside + 2, beside)
        below = beside
    state["outc.conv.weight"], state["outc.conv.bias"] = drawn(outputs, w[0], 1, 1), drawn(outputs)
    return state


def computed(state, x):
    """What such a U-Net gives, written out without modules."""

    def double(prefix, x):
        for place in (0, 3):
            convolution, norm = f"{prefix}.double_conv.{place}", f"{prefix}.double_conv.{place + 1}"
            x = F.conv2d(
                x, state[f"{convolution}.weight"], state.get(f"{convolution}.bias"), padding=1
            )
            mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
            x = F.relu(
                F.batch_norm(x, mean, variance, state[f"{norm}.weight"], state[f"{norm}.bias"])
            )
        return x

    levels = [double("inc", x)]
    for level in range(1, 5):
        levels.append(double(f"down{level}.maxpool_conv.1", F.max_pool2d(levels[-1], 2)))
    y = levels.pop()
    for level in range(1, 5):
        if f"up{level}.up.weight" in state:
            y = F.conv_transpose2d(
                y, state[f"up{level}.up.weight"], state[f"up{level}.up.bias"], stride=2
            )
        else:
            y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=True)
        y = double(f"up{level}.conv", torch.cat((levels.pop(), y), 1))
    return F.conv2d(y, state["outc.conv.weight"], state["outc.conv.bias"])


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("kept", ["bare", "state_dict", "safetensors", "prefixed"])
def test_a_plain_unet_gives_what_its_weights_say(tmp_path, images, transposed, kept):
    state = entries_of(transposed, bias=transposed)
    path = tmp_path / f"unet.{'safetensors' if kept == 'safetensors' else 'pth'}"
    if kept == "safetensors":
        save_file(state, path)
    elif kept == "prefixed":
        torch.save({"epoch": 3, "model": {f"module.{k}": v for k, v in state.items()}}, path)
    else:
        torch.save(state if kept == "bare" else {"state_dict": state, "loss": 0.1}, path)
    done = CliRunner().invoke(
        main,
        [
            *("wrap", str(path), "--architecture", "unet", "--classes", ",".join(CLASSES)),
            *("--mpp", "0.5", "--tile-size", "64", "-o", str(tmp_path / "model.ts")),
        ],
    )
    assert done.exit_code == 0, done.output
    model = load_model(tmp_path / "model.ts", "cpu")
    assert model.info.architecture == {"name": "unet"}
    expected = computed(state, images / 255).softmax(1)
    torch.testing.assert_close(model(images), expected, atol=1e-5, rtol=0)
    assert expected.std() > 0.05, "else anything would do"


def test_one_output_is_one_class_against_the_rest(tmp_path, images):
    state = entries_of(False, outputs=1)
    torch.save(state, tmp_path / "unet.pth")
    options = {"classes": CLASSES, "mpp": 0.5, "architecture": "unet", "device": "cpu"}
    model = wrap_model(tmp_path / "unet.pth", **options)
    share = computed(state, images / 255).sigmoid()
    torch.testing.assert_close(model(images)[:, 1:], share, atol=1e-5, rtol=0)
    model = wrap_model(tmp_path / "unet.pth", imagenet=True, **options)
    mean, deviation = (
        torch.tensor(each)[:, None, None] for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    share = computed(state, (images / 255 - mean) / deviation).sigmoid()
    torch.testing.assert_close(model(images)[:, 1:], share, atol=1e-5, rtol=0)
    with pytest.raises(InputError, match=r"those of images in 0\.\.1"):
        wrap_model(tmp_path / "unet.pth", imagenet=True, input_scaling="minus_one_one", **options)
    with pytest.raises(InputError, match="is of a file of weights: leave it out"):
        wrap_model(nn.Identity(), **options)


def test_what_are_no_weights_of_it(tmp_path):
    path = tmp_path / "unet.pth"
    state = entries_of(True)

    def told(content, architecture="unet", kind=ModelError):
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        with pytest.raises(kind) as error:
            wrap_model(path, classes=CLASSES, mpp=0.5, architecture=architecture)
        assert "\n" not in str(error.value)
        return str(error.value).removeprefix(f"{path}: ")

    assert told(pickle.dumps({"a": print})).startswith("cannot be read as a PyTorch checkpoint")
    assert told({"net": nn.Linear(2, 2)}).startswith("cannot be read as a PyTorch checkpoint")
    assert told({"epoch": 3}).startswith("holds no state dict: save one")
    assert told([1, 2]).startswith("holds no state dict")
    without = {
        key: value
        for key, value in state.items()
        if key != "down2.maxpool_conv.1.double_conv.0.weight"
    }
    assert told(without).startswith("no weights of a plain U-Net: 'down2.maxpool_conv")
    assert told(state | {"more": torch.ones(2)}).startswith(
        "not weights of unet: they have beside them 1 tensor (more)"
    )
    odd = state | {"inc.double_conv.1.weight": torch.ones(3)}
    assert "inc.double_conv.1.weight has shape (3,) instead of (8,)" in told(odd)
    odd = state | {"outc.conv.bias": torch.tensor([0, torch.nan])}
    assert told(odd).startswith("outc.conv.bias is not all finite")
    assert told(state | {"outc.conv.weight": torch.ones(())}).startswith("no weights of a plain")
    assert "give unet, or smp:ARCHITECTURE:ENCODER" in told(state, "resnet", InputError)
    with pytest.raises(ModelError, match="there is no such file"):
        read_state_dict(tmp_path / "gone.pth")
    (tmp_path / "a.safetensors").write_bytes(b"\xff" * 9)
    with pytest.raises(ModelError, match="damaged weights"):
        read_state_dict(tmp_path / "a.safetensors")


class Small(nn.Module):
    """In the place of a network of segmentation_models_pytorch."""

    def __init__(self, classes):
        super().__init__()
        self.encoder = nn.Conv2d(3, 4, 3, padding=1)
        self.segmentation_head = nn.Sequential(nn.Conv2d(4, classes, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.segmentation_head(self.encoder(x))


class Traced(Small):
    """What TorchScript does not compile."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.segmentation_head(self._modules["enc" + "oder"](x))


class OfOneSize(Traced):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) / len(x[0, 0])


def test_how_smp_is_asked(tmp_path, images, monkeypatch):
    asked = []

    def create_model(arch, encoder_name, encoder_weights, classes):
        asked.append((arch, encoder_name, encoder_weights))
        kinds = {"Unet": Small, "UnetPlusPlus": Traced, "PAN": OfOneSize}
        if arch not in kinds:
            raise KeyError("Wrong architecture type")
        return kinds[arch](classes)

    library = ModuleType("segmentation_models_pytorch")
    library.create_model = create_model
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", library)
    network = Small(3)
    torch.save(
        {"state_dict": {f"model.{k}": v for k, v in network.state_dict().items()}},
        tmp_path / "a.ckpt",
    )
    options = {"classes": ("background", "a", "b"), "mpp": 0.5, "device": "cpu"}
    model = wrap_model(tmp_path / "a.ckpt", architecture="smp:Unet:resnet34", **options)
    assert asked == [("Unet", "resnet34", None)], "no weights are fetched"
    with torch.no_grad():
        expected = network(images / 255).softmax(1)
    torch.testing.assert_close(model(images), expected, atol=1e-5, rtol=0)
    model = wrap_model(tmp_path / "a.ckpt", architecture="smp:UnetPlusPlus:resnet34", **options)
    torch.testing.assert_close(model(images), expected, atol=1e-5, rtol=0)
    with pytest.raises(ModelError, match="it does otherwise for each size"):
        wrap_model(tmp_path / "a.ckpt", architecture="smp:PAN:resnet34", **options)
    with pytest.raises(InputError, match="smp:Net:resnet34: 'Wrong architecture type'"):
        wrap_model(tmp_path / "a.ckpt", architecture="smp:Net:resnet34", **options)
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(InputError, match=r"cannot be imported .*pip install 'genselfdiff\[smp\]'"):
        wrap_model(tmp_path / "a.ckpt", architecture="smp:Unet:resnet34", **options)


@pytest.mark.parametrize(
    "name",
    [
        "UnetPlusPlus:resnet18",
        "Unet:resnet18",
        "FPN:mobilenet_v2",
        "DeepLabV3Plus:tu-resnet10t",
        "Segformer:mit_b0",
    ],
)
def test_networks_of_smp(tmp_path, images, name):
    smp = pytest.importorskip("segmentation_models_pytorch")
    kind, encoder = name.split(":")
    torch.manual_seed(0)
    network = smp.create_model(kind, encoder, encoder_weights=None, classes=2).eval()
    torch.save(network.state_dict(), tmp_path / "a.pth")
    wrap_model(
        tmp_path / "a.pth", architecture=f"smp:{name}", classes=CLASSES, mpp=0.5, tile_size=64,
        output=tmp_path / "model.ts",
    )  # fmt: skip
    with torch.no_grad():
        expected = network(images / 255).softmax(1)
    found = load_model(tmp_path / "model.ts", "cpu")(images)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert np.ptp(expected.numpy()) > 0
