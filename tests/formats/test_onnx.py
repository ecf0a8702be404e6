"""Model files in ONNX: what is written, what of it is believed, and slides segmented with it."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from elsewhere import SIZES, images, run_elsewhere
from torch import nn

from genselfdiff.choices import ARCHITECTURES
from genselfdiff.errors import InputError, ModelError
from genselfdiff.models.formats.onnx_checks import checked_model
from genselfdiff.models.formats.onnx_file import OPSET
from genselfdiff.models.model_file import load_model, save_model
from genselfdiff.models.model_info import EXTRA_FILE, ModelInfo
from genselfdiff.models.registry import create_model
from gsd.main import main

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

Written = Callable[[str], Path]


@pytest.fixture
def exported(small_unet_in: Written) -> Path:
    """``model.onnx``, and ``model.ts`` of the same network beside it."""
    return small_unet_in("onnx")


@pytest.mark.soak
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_from_a_file_in_torchscript(
    tmp_path: Path, info: Callable[..., ModelInfo], architecture: str
) -> None:
    described = info(3, architecture={"name": architecture, "width": 24}, size_multiple=32)
    network = create_model(architecture, out_channels=3, width=24)
    described = replace(described, size_multiple=network.size_multiple)
    save_model(network, described, tmp_path / "model.ts")
    plain = load_model(tmp_path / "model.ts", "cpu")
    for name in ("model.onnx", "model.pt2"):
        path = tmp_path / name
        result = CliRunner().invoke(main, ["export", str(plain.path), "-o", str(path)])
        assert result.exit_code == 0, result.output
        model = load_model(path)
        for size in SIZES:
            torch.testing.assert_close(model(images(size)), plain(images(size)), rtol=0, atol=1e-4)


def test_what_is_written_is_what_the_standard_wants(exported: Path) -> None:
    model = onnx.load(exported)
    onnx.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", OPSET)]
    assert [each.key for each in model.metadata_props] == [EXTRA_FILE]
    taken, given = model.graph.input[0], model.graph.output[0]
    assert (taken.name, given.name) == ("images", "probabilities")
    for value in (taken, given):
        axes = value.type.tensor_type.shape.dim
        assert [axis.dim_param for axis in axes] == ["N", "", "H", "W"]


def test_a_file_tells_nothing_of_where_it_was_made(exported: Path) -> None:
    content = exported.read_bytes()
    for folder in (Path(torch.__file__).parents[1], Path.cwd(), exported.parent):
        assert str(folder).encode() not in content


def test_onnxruntime_alone_is_enough(exported: Path) -> None:
    size = SIZES[2]
    np.save(exported.parent / "x.npy", images(size).float().numpy())
    code = f"""import numpy as np, onnxruntime
session = onnxruntime.InferenceSession({exported.name!r})
assert "gsd.json" in session.get_modelmeta().custom_metadata_map
np.save("y.npy", session.run(None, {{"images": np.load("x.npy")}})[0])
"""
    run_elsewhere(exported.parent, code, ("torch", "genselfdiff", "onnx"))
    found = torch.from_numpy(np.load(exported.parent / "y.npy"))
    expected = load_model(exported.with_suffix(".ts"), "cpu")(images(size))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_told_of(
    darkness: Written, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"need {package}: pip install 'genselfdiff\[onnx\]'"):
        load_model(darkness("onnx"))


def test_what_a_file_cannot_hold_is_refused_before_it_is_exported(
    info: Callable[..., ModelInfo], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("genselfdiff.models.formats.onnx_file.LARGEST", 100)
    monkeypatch.setattr("genselfdiff.models.formats.onnx_file.exported_program", None)
    with pytest.raises(ModelError, match="GiB of weights; a file of ONNX holds 2 GiB: export to"):
        save_model(nn.Linear(9, 9), info(), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


class DoublesLarge(nn.Module):
    """Another network for large images than for small ones."""

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        y = torch.cat((x[:, :1], -x[:, :1]), dim=1)
        return 2 * y if x.shape[2] > 16 else y


def test_a_network_that_looks_at_sizes_is_no_graph(
    tmp_path: Path, info: Callable[..., ModelInfo]
) -> None:
    with pytest.raises(ModelError, match="graph fails for 1 image of 1 x 1"):
        save_model(DoublesLarge(), info(), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_channels_are_those_of_the_classes(
    tmp_path: Path, info: Callable[..., ModelInfo], conv_net: Callable[..., nn.Module]
) -> None:
    with pytest.raises(ModelError, match=r"model.onnx: the network gives 4 channels, but 2 class"):
        save_model(conv_net(classes=4), info(2), tmp_path / "model.onnx")


def outside(model: "onnx.ModelProto") -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    tensor.ClearField("raw_data")


def quietly_outside(model: "onnx.ModelProto") -> None:
    model.graph.initializer[0].external_data.add(key="location", value="weights")


def constant_outside(model: "onnx.ModelProto") -> None:
    node = model.graph.node.add(op_type="Constant", output=["c"])
    node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR)
    node.attribute[0].t.CopyFrom(onnx.numpy_helper.from_array(np.zeros(1, np.float32), "c"))
    node.attribute[0].t.external_data.add(key="location", value="weights")


def foreign_operator(model: "onnx.ModelProto") -> None:
    model.graph.node[0].domain = "com.microsoft"


def foreign_opset(model: "onnx.ModelProto") -> None:
    model.opset_import.add(domain="ai.onnx.ml", version=1)


def inner_graph(model: "onnx.ModelProto") -> None:
    node = model.graph.node.add(op_type="If")
    node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH).g.name = "inner"


def function(model: "onnx.ModelProto") -> None:
    model.functions.add(name="Relu", domain="")


def huge(model: "onnx.ModelProto") -> None:
    model.graph.initializer[0].dims[:] = [2**40, 2**20]


def ragged(model: "onnx.ModelProto") -> None:
    model.graph.initializer[0].raw_data += b"\0"


def negative(model: "onnx.ModelProto") -> None:
    model.graph.initializer[0].dims[:] = [-1]


def text(model: "onnx.ModelProto") -> None:
    model.graph.initializer[0].data_type = onnx.TensorProto.STRING


def sparse(model: "onnx.ModelProto") -> None:
    model.graph.sparse_initializer.add()


def later(model: "onnx.ModelProto") -> None:
    model.opset_import[0].version = 999


def earlier(model: "onnx.ModelProto") -> None:
    model.opset_import[0].version = 6


def two_opsets(model: "onnx.ModelProto") -> None:
    model.opset_import.add(domain="ai.onnx", version=18)


def undescribed(model: "onnx.ModelProto") -> None:
    del model.metadata_props[:]


def described_twice(model: "onnx.ModelProto") -> None:
    model.metadata_props.add(key=EXTRA_FILE, value="{}")


def ill_described(model: "onnx.ModelProto") -> None:
    model.metadata_props[0].value = "[]"


def two_inputs(model: "onnx.ModelProto") -> None:
    model.graph.input.add(name="more").CopyFrom(model.graph.input[0])
    model.graph.input[1].name = "more"


def unknown_operator(model: "onnx.ModelProto") -> None:
    model.graph.node[0].op_type = "Exec"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (outside, "in another file, which is not read"),
        (quietly_outside, "in another file"),
        (constant_outside, "keeps 'c' in another file"),
        (foreign_operator, "'com.microsoft', operators that are not of the ONNX standard"),
        (foreign_opset, "'ai.onnx.ml', operators that are not"),
        (inner_graph, "has a graph inside of 'If'"),
        (function, "functions of its own"),
        (huge, "is not as large as it says"),
        (ragged, "is not as large as it says"),
        (negative, "negative size"),
        (text, "in a type that no model of ours has"),
        (sparse, "sparse tensors"),
        (later, "opset 999, but 7 to"),
        (earlier, "opset 6, but 7 to"),
        (two_opsets, "does not tell one version"),
        (undescribed, "an ONNX model without gsd.json"),
        (described_twice, "with more than one gsd.json"),
        (ill_described, "does not describe a genselfdiff-model"),
        (two_inputs, "takes 2 tensors and gives 1"),
        (unknown_operator, "damaged model file: onnxruntime: .*Exec"),
    ],
)
def test_what_is_no_plain_model_is_refused(
    darkness: Written,
    tmp_path: Path,
    change: Callable[["onnx.ModelProto"], None],
    told: str,
) -> None:
    model = onnx.load(darkness("onnx"))
    change(model)
    path = tmp_path / "changed.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=rf"changed\.onnx: .*{told}") as raised:
        load_model(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"\x80\x04}q\x00.", b"\xff" * 99], ids=["", "zip", "pkl", "ff"]
)
def test_what_is_no_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.onnx: (not an ONNX model|does not tell one ver)"):
        load_model(path)


def test_settings_for_onnxruntime_do_not_reach_it(darkness: Written) -> None:
    model = onnx.load(darkness("onnx"))
    model.metadata_props.add(key="ort_config", value='{"session_options": {}}')
    checked, metadata = checked_model(model.SerializeToString())
    assert not onnx.ModelProto.FromString(checked).metadata_props
    assert ModelInfo.from_json(metadata).classes == ("background", "nucleus")
