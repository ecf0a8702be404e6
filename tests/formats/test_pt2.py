"""Model files of torch.export: what is written, and what of it reaches torch."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from elsewhere import SIZES, images, run_elsewhere
from torch import nn

from genselfdiff.errors import ModelError
from genselfdiff.models.formats.pt2_checks import read_program
from genselfdiff.models.model_file import load_model
from genselfdiff.models.model_info import EXTRA_FILE
from genselfdiff.models.wrapping import wrap_model

Written = Callable[[str], Path]

GRAPH = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"


@pytest.fixture
def exported(small_unet_in: Written) -> Path:
    """``model.pt2``, and ``model.ts`` of the same network beside it."""
    return small_unet_in("pt2")


def test_torch_alone_is_enough(exported: Path) -> None:
    code = f"""import torch
extra = {{"gsd.json": ""}}
model = torch.export.load({exported.name!r}, extra_files=extra).module()
assert "genselfdiff-model" in extra["gsd.json"]
torch.save([model(x) for x in torch.load("x.pt")], "y.pt")
"""
    taken = [images(size).float() for size in SIZES]
    torch.save(taken, exported.parent / "x.pt")
    run_elsewhere(exported.parent, code, ("genselfdiff", "onnx", "onnxruntime"))
    plain = load_model(exported.with_suffix(".ts"), "cpu")
    for x, found in zip(taken, torch.load(exported.parent / "y.pt"), strict=True):
        torch.testing.assert_close(found, plain(x), rtol=0, atol=1e-4)


def test_of_torchscript_there_is_no_graph(tmp_path: Path) -> None:
    script = torch.jit.script(nn.Conv2d(3, 2, 3, padding=1))
    with pytest.raises(ModelError, match=r"is in TorchScript.* or write a model\.ts"):
        wrap_model(script, classes=["a", "b"], mpp=0.5, output=tmp_path / "model.pt2")


def test_nothing_is_pickled_and_nothing_tells_where_it_was_made(exported: Path) -> None:
    with zipfile.ZipFile(exported) as archive:
        content = {info.filename: archive.read(info) for info in archive.infolist()}
    assert content["model/data/sample_inputs/model.pt"] == b""
    assert b'"use_pickle": true' not in content[f"model/{WEIGHTS}"]
    for folder in (Path(torch.__file__).parents[1], Path.cwd(), exported.parent):
        assert not any(str(folder).encode() in data for data in content.values())


def rewritten(
    source: Path, target: Path, name: str, change: Callable[[Any], object] | bytes | None
) -> Path:
    """A copy with one member changed, as JSON or bytes, added, or left out (None)."""
    with zipfile.ZipFile(source) as archive:
        content = {
            info.filename.partition("/")[2]: archive.read(info) for info in archive.infolist()
        }
    if change is None:
        del content[name]
    elif isinstance(change, bytes):
        content[name] = change
    else:
        told = json.loads(content[name])
        change(told)
        content[name] = json.dumps(told).encode()
    with zipfile.ZipFile(target, "w") as archive:
        for member, data in content.items():
            archive.writestr(f"model/{member}", data)
    return target


def first(told: dict[str, Any]) -> dict[str, Any]:
    """What is told of the first tensor."""
    found: dict[str, Any] = next(iter(told["config"].values()))
    return found


def nodes(told: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = told["graph_module"]["graph"]["nodes"]
    return found


def sizes(told: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = told["graph_module"]["graph"]["sym_int_values"]
    return found


def size_of(text: str) -> Callable[[Any], object]:
    def change(told: dict[str, Any]) -> None:
        next(iter(sizes(told).values()))["as_expr"]["expr_str"] = text

    return change


def calls(target: str) -> Callable[[Any], object]:
    return lambda told: nodes(told)[-1].update(target=target)


def argument(**value: object) -> Callable[[Any], object]:
    return lambda told: nodes(told)[-1]["inputs"][0].update(arg=value)


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        (WEIGHTS, lambda t: first(t).update(use_pickle=True), "otherwise than as plain numbers"),
        (WEIGHTS, lambda t: first(t).update(path_name="weight_9"), "otherwise than as plain"),
        (WEIGHTS, lambda t: first(t).update(path_name="../../x"), "otherwise than as plain"),
        (
            WEIGHTS,
            lambda t: first(t)["tensor_meta"].update(sizes=[{"as_int": 2**40}]),
            "larger than what is stored",
        ),
        (
            WEIGHTS,
            lambda t: first(t)["tensor_meta"].update(storage_offset={"as_int": 9}),
            "larger than what is stored",
        ),
        (WEIGHTS, lambda t: first(t)["tensor_meta"].update(strides=[{"as_int": -1}]), "damaged"),
        (WEIGHTS, lambda t: first(t)["tensor_meta"].update(dtype=99), "damaged"),
        (WEIGHTS, lambda t: t.update(config=3), "damaged"),
        (WEIGHTS, b"{", "is not JSON"),
        (WEIGHTS, None, "has no data/weights/model_weights_config.json: written by a version of"),
        ("data/weights/model.pt", b"\x80\x04}q\0.", r"holds data/weights/model.pt, which no model"),
        ("data/constants/custom_obj_0", b"\x80\x04}.", "holds data/constants/custom_obj_0"),
        ("data/aotinductor/model/x.so", b"\x7fELF", "holds data/aotinductor/model/x.so"),
        ("data/sample_inputs/model.pt", b"\x80\x04}q\0.", "example inputs, which are pickled"),
        ("extra/" + EXTRA_FILE, None, "a file of torch.export without gsd.json"),
        ("extra/" + EXTRA_FILE, b"[]", "does not describe a genselfdiff-model"),
        ("archive_format", b"pt3", "no file of torch.export"),
        ("archive_format", None, "no file of torch.export"),
        ("archive_version", b"99", "damaged model file: .*version"),
        (GRAPH, b"[" * 100_000, "is not JSON"),
        (GRAPH, b"[]", "damaged"),
        (GRAPH, calls("torch.load"), "names 'torch.load', which does more than compute"),
        (GRAPH, calls("torch.os.system"), "names 'torch.os.system', which does more"),
        (GRAPH, calls("torch.ops.aten.from_file.default"), "aten::from_file, which does more"),
        (GRAPH, calls("torch.ops.aten.nothing.default"), "this version of torch does not have"),
        (GRAPH, calls("torch.ops.aten.cat.__init__.x"), "does more than compute"),
        (GRAPH, calls("_operator.attrgetter"), "names '_operator.attrgetter'"),
        (GRAPH, calls("#higher_order"), "names '#higher_order'"),
        (GRAPH, calls("torch.ops.higher_order.cond"), "does more than compute"),
        (GRAPH, size_of("__import__('os').system('touch hacked')"), "a size that is more than one"),
        (GRAPH, size_of("Symbol('s0').func"), "a size that is more than one"),
        (GRAPH, size_of("Integer(9)**Integer(9)"), "a size that is more than one"),
        (GRAPH, size_of("Symbol"), "a size that is more than one"),
        (GRAPH, size_of("Symbol('os')"), "a size that is more than one"),
        (GRAPH, size_of("Max(" * 900 + "1" + ")" * 900), "damaged"),
        (GRAPH, argument(as_graph={"name": "x"}), "has 'as_graph' in its graph"),
        (GRAPH, argument(as_operator="torch.load"), "has 'as_operator' in its graph"),
        (GRAPH, argument(as_custom_obj={"name": "x"}), "has 'as_custom_obj' in its graph"),
        (GRAPH, argument(as_tensor={"name": "x;import os"}), "which is no name"),
        (GRAPH, argument(as_tensor={"name": "x\x1b[2J"}), r"2J' in its graph, which is no name"),
        (GRAPH, argument(as_tensor={"name": "nowhere"}), "damaged model file"),
        (GRAPH, argument(as_int=2**70), "damaged"),
        (GRAPH, lambda t: t.update(guards_code=["print(1)"]), "has conditions in code"),
        (GRAPH, lambda t: t.update(range_constraints={"u99999999999": None}), "damaged"),
        (
            GRAPH,
            lambda t: t["graph_module"]["signature"]["output_specs"][0].update(buffer_mutation=1),
            "changes more than what it gives",
        ),
        (
            GRAPH,
            lambda t: t["graph_module"]["module_call_graph"][0]["signature"].update(
                in_spec='[1, {"type": "os.system", "context": "x", "children_spec": []}]'
            ),
            "does not take one tensor of images",
        ),
        (GRAPH, lambda t: t["schema_version"].update(major=99), "in version 99 of torch"),
    ],
)
def test_what_is_more_than_a_graph_is_refused(
    darkness: Written,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    change: Callable[[Any], object] | bytes | None,
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = rewritten(darkness("pt2"), tmp_path / "changed.pt2", name, change)
    with pytest.raises(ModelError, match=rf"changed\.pt2: .*{told}") as raised:
        load_model(path)
    assert "\n" not in str(raised.value)
    assert [each.name for each in tmp_path.iterdir()] == ["changed.pt2"]


def test_other_archives_are_told_apart(darkness_model: Path, tmp_path: Path) -> None:
    for name, content in (("ts", darkness_model.read_bytes()), ("empty", b""), ("x", b"PK" * 9)):
        path = tmp_path / f"{name}.pt2"
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"no file of torch\.export|not a model file"):
            load_model(path)


def test_where_it_was_made_does_not_reach_torch(darkness: Written, tmp_path: Path) -> None:
    def tell(told: dict[str, Any]) -> None:
        nodes(told)[0]["metadata"] = {"stack_trace": "/home/me", "nn_module_stack": "a,b,c"}

    path = rewritten(darkness("pt2"), tmp_path / "telling.pt2", GRAPH, tell)
    with path.open("rb") as file, read_program(file).content as content:
        assert b"/home/me" not in content.read()
