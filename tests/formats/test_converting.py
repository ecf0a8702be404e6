"""A model file made of another."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from elsewhere import SIZES, images
from torch import nn

from genselfdiff.errors import InputError, ModelError
from genselfdiff.models.model_file import load_model, save_model
from genselfdiff.models.model_info import EXTRA_FILE, ModelInfo
from genselfdiff.training.export import export
from gsd.main import main


def test_a_fused_file_becomes_a_portable_one_and_back(
    unet: tuple[Path, ModelInfo], tmp_path: Path
) -> None:
    expected = load_model(unet[0], "cpu")(images((2, 24, 40)))
    assert export(unet[0], tmp_path / "portable.ts", portable=True) == unet[1]
    plain = torch.jit.load(tmp_path / "portable.ts")
    assert not any("gsd" in name for name in torch.jit.export_opnames(plain))
    torch.testing.assert_close(plain(images((2, 24, 40))), expected, rtol=0, atol=1e-4)
    export(tmp_path / "portable.ts", tmp_path / "fused.ts")
    again = load_model(tmp_path / "fused.ts", "cpu")
    torch.testing.assert_close(again(images((2, 24, 40))), expected, rtol=0, atol=1e-6)
    assert any("gsd" in name for name in torch.jit.export_opnames(again.module))


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_a_graph_of_a_unet_gives_what_it_gives_in_torchscript(
    small_unet_in: Callable[[str], Path], suffix: str
) -> None:
    if suffix == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    path = small_unet_in(suffix)
    model, plain = load_model(path), load_model(path.with_suffix(".ts"), "cpu")
    assert model.info == plain.info
    for size in SIZES:
        found = model(images(size))
        torch.testing.assert_close(found, plain(images(size)), rtol=0, atol=1e-4)
    assert found.shape[1] == 3
    assert found[:, 0].max() - found[:, 0].min() > 0.2, "nothing to tell apart"


def claiming(source: Path, target: Path, **changes: object) -> Path:
    """A copy of a model file that says something else of its network."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith(EXTRA_FILE):
                content = json.loads(data)
                content["architecture"] |= changes
                data = json.dumps(content).encode()
            new.writestr(name, data)
    return target


@pytest.mark.parametrize(
    "changes",
    [{"width": 16}, {"width": 2**40}, {"width": "x"}, {"name": "paper"}, {"name": ["x"]}],
    ids=str,
)
def test_a_network_that_is_not_what_it_says_is_not_converted(
    unet: tuple[Path, ModelInfo], tmp_path: Path, changes: dict[str, object]
) -> None:
    path = claiming(unet[0], tmp_path / "lies.ts", **changes)
    with pytest.raises(ModelError, match=r"lies\.ts: cannot be converted"):
        export(path, tmp_path / "other.ts")
    assert not (tmp_path / "other.ts").exists()


def test_weights_that_compute_something_else_are_not_converted(
    unet: tuple[Path, ModelInfo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(unet[0], "cpu")
    monkeypatch.setattr(
        type(model), "__call__", lambda self, x: torch.zeros(len(x), 3, *x.shape[2:])
    )
    with pytest.raises(ModelError, match="cannot be converted"):
        export(unet[0], tmp_path / "other.ts")


def test_networks_of_others_are_not_converted(
    conv_net: Callable[..., nn.Module], info: Callable[..., ModelInfo], tmp_path: Path
) -> None:
    save_model(conv_net(), info(3), tmp_path / "model.ts")
    with pytest.raises(ModelError, match="only a U-Net of gsd's can"):
        export(tmp_path / "model.ts", tmp_path / "other.ts")


def test_a_finished_model_keeps_its_licence(unet: tuple[Path, ModelInfo], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has its own licence"):
        export(unet[0], tmp_path / "other.ts", licence="MIT")


def test_a_file_is_not_written_over_itself(unet: tuple[Path, ModelInfo]) -> None:
    result = CliRunner().invoke(main, ["export", str(unet[0]), "-o", str(unet[0]), "--overwrite"])
    assert result.exit_code == 1
    assert "is an input of this run" in result.output


def test_an_unknown_format_is_refused(
    conv_net: Callable[..., nn.Module], info: Callable[..., ModelInfo], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="'keras' must be one of torchscript, onnx, pt2"):
        save_model(conv_net(), info(3), tmp_path / "model.ts", format="keras")


def test_a_format_can_be_named_whatever_the_suffix(
    conv_net: Callable[..., nn.Module], info: Callable[..., ModelInfo], tmp_path: Path
) -> None:
    save_model(conv_net(), info(3), tmp_path / "model.onnx", format="torchscript")
    assert torch.jit.load(tmp_path / "model.onnx")(images((1, 8, 8))).shape[1] == 3
