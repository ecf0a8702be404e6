"""Models in other formats than TorchScript that mean harm, a function of a seed and a number."""

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attacks import attack
from mutations import mutate
from torch import nn

from genselfdiff.models.model_file import save_model
from genselfdiff.models.model_info import ModelInfo
from genselfdiff.models.published.model_folder import write_model_folder
from genselfdiff.models.registry import create_model

Change = Callable[[Path, np.random.Generator], str]

_TARGETS = (
    "torch.os.system",
    "torch.ops.aten.save.default",
    "torch.ops.aten.from_file.default",
    "torch.ops.prim.Print.default",
    "torch.load",
    "_operator.call",
    "math.prod",
)
"""What a graph of torch.export may name, and what runs, or writes, or reads when it is called."""
_TEXTS = ("__import__('os').mkdir('written')", "../../written", "\x1b[31m", "s" * 10**5, "")


def write_models(folder: Path, network: nn.Module, info: ModelInfo) -> list[Path]:
    """A model of each kind: graphs, a package, a folder, and weights alone."""
    for name in ("model.onnx", "model.pt2", "model.zip"):
        save_model(network, info, folder / name)
    architecture = {"name": "tiny", "width": 8}
    unet = create_model("tiny", out_channels=2, width=8).state_dict()
    write_model_folder(folder / "passed_on", unet, replace(info, architecture=architecture))
    torch.save({"state_dict": plain_unet()}, folder / "weights.pth")
    return sorted(folder.iterdir())


def plain_unet() -> dict[str, torch.Tensor]:
    """Weights of the usual U-Net, each level as wide as the others."""
    width = 8
    blocks = {"inc": 3} | {f"down{level}.maxpool_conv.1": width for level in range(1, 5)}
    state = {"outc.conv.weight": torch.rand(2, width, 1, 1), "outc.conv.bias": torch.zeros(2)}
    for block, inputs in (blocks | {f"up{level}.conv": 2 * width for level in range(1, 5)}).items():
        for place, taken in ((0, inputs), (3, width)):
            state[f"{block}.double_conv.{place}.weight"] = torch.rand(width, taken, 3, 3) - 0.5
            norm = nn.BatchNorm2d(width).state_dict(prefix=f"{block}.double_conv.{place + 1}.")
            state.update(norm)
    return state


def spoil(path: Path, rng: np.random.Generator) -> str:
    """Change a copy of one of them; returns in words what was done."""
    if path.is_dir():
        path = path / str(rng.choice(["model.safetensors", "gsd.json"]))
        if rng.random() < 0.2:
            return f"{path.name}: {attack(path, rng)}"
    changes = _CHANGES.get(path.suffix, [])
    if changes and rng.random() < 0.8:
        return changes[int(rng.integers(len(changes)))](path, rng)
    data, told = mutate(path.read_bytes(), rng)
    path.write_bytes(data)
    return f"{path.name}: {told}"


def _in_archive(change: Callable[[dict[str, bytes], np.random.Generator], str]) -> Change:
    def changed(path: Path, rng: np.random.Generator) -> str:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        told = change(members, rng)
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        path.write_bytes(content.getvalue())
        return told

    return changed


def _member(members: dict[str, bytes], rng: np.random.Generator) -> str:
    """Damaged content of any member."""
    name = str(rng.choice([name for name in members if members[name]]))
    members[name], told = mutate(members[name], rng)
    return f"{name}: {told}"


def _lost(members: dict[str, bytes], rng: np.random.Generator) -> str:
    name = str(rng.choice(list(members)))
    del members[name]
    return f"lacks {name}"


def _stranger(members: dict[str, bytes], rng: np.random.Generator) -> str:
    folder = next(iter(members)).partition("/")[0]
    ends = ("data/constants/custom_obj_0", "data/aotinductor/model/a.so", "../../written", "x.py")
    name = f"{folder}/{rng.choice(ends)}"
    members[name] = b"\x80\x04cos\nmkdir\n(Vwritten\ntR."
    return f"holds {name}"


def _json_value(members: dict[str, bytes], rng: np.random.Generator) -> str:
    """Another value anywhere in JSON: of another type, or a text that would be code."""
    name = str(rng.choice([name for name in members if members[name][:1] == b"{"]))
    content = json.loads(members[name])
    places = list(_places(content))
    place, key = places[int(rng.integers(len(places)))]
    odd: list[Any] = [None, True, -1, 2**63, 10**30, 1e308, [], {}, [[]], *_TARGETS, *_TEXTS]
    value = odd[int(rng.integers(len(odd)))]
    place[key] = value
    members[name] = json.dumps(content).encode()
    return f"{name}: {key} is {str(value)[:40]!r}"


def _target(members: dict[str, bytes], rng: np.random.Generator) -> str:
    """Another function, or any operator of torch, in the place of one of a graph."""
    name = next(name for name in members if name.endswith("models/model.json"))
    content = json.loads(members[name])
    nodes = content["graph_module"]["graph"]["nodes"]
    schemas = torch._C._jit_get_all_schemas()
    operator = schemas[int(rng.integers(len(schemas)))].name.replace("::", ".")
    named = [*_TARGETS, *[f"torch.ops.{operator}.default"] * 5]
    target = named[int(rng.integers(len(named)))]
    nodes[int(rng.integers(len(nodes)))]["target"] = target
    members[name] = json.dumps(content).encode()
    return f"calls {target}"


def _places(content: Any) -> Any:
    keys = list(content) if isinstance(content, dict) else range(len(content))
    for key in keys:
        yield content, key
        if isinstance(content[key], dict | list):
            yield from _places(content[key])


def _in_onnx(path: Path, rng: np.random.Generator) -> str:
    """Another operator, tensor, name or size in a graph of ONNX."""
    import onnx

    model = onnx.load(path)
    node = model.graph.node[int(rng.integers(len(model.graph.node)))]
    tensors = model.graph.initializer
    kind = int(rng.integers(6))
    if kind == 0:
        schemas = onnx.defs.get_all_schemas()
        node.op_type = schemas[int(rng.integers(len(schemas)))].name
        told = f"operator {node.op_type}"
    elif kind == 1 and tensors:
        tensor = tensors[int(rng.integers(len(tensors)))]
        tensor.data_location = onnx.TensorProto.EXTERNAL
        place = str(rng.choice(["secret", "../secret", "/etc/passwd", "/dev/zero"]))
        tensor.external_data.add(key="location", value=place)
        told = f"tensor in {place}"
    elif kind == 2 and tensors:
        tensor = tensors[int(rng.integers(len(tensors)))]
        tensor.dims[:] = [int(2 ** rng.uniform(0, 50)) for _ in range(int(rng.integers(5)))]
        told = f"tensor of {list(tensor.dims)}"
    elif kind == 3:
        node.domain = str(rng.choice(["com.microsoft", "ai.onnx.ml", "mine"]))
        told = f"domain {node.domain}"
    elif kind == 4 and node.attribute:
        attribute = node.attribute[int(rng.integers(len(node.attribute)))]
        attribute.i = int(rng.choice([-1, 2**31, 2**62]))
        attribute.ints[:] = [attribute.i] * int(rng.integers(6))
        told = f"{node.op_type}.{attribute.name} is {attribute.i}"
    else:
        names = [name for each in model.graph.node for name in (*each.input, *each.output)]
        taken = node.input if len(node.input) else node.output
        taken[0] = str(rng.choice(names))
        told = f"{node.op_type} takes {taken[0]}"
    path.write_bytes(model.SerializeToString())
    return told


_CHANGES: dict[str, list[Change]] = {
    ".onnx": [_in_onnx],
    ".pt2": [
        _in_archive(c) for c in (_member, _json_value, _json_value, _target, _stranger, _lost)
    ],
    ".zip": [_in_archive(c) for c in (_member, _lost)],
    ".pth": [_in_archive(c) for c in (_member, _lost, _stranger)],
}
