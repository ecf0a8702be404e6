"""A model file is data: what it may hold, and what is refused before torch loads it."""

import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genselfdiff.errors import ModelError
from genselfdiff.models.archive import operators
from genselfdiff.models.archive.code import check_code
from genselfdiff.models.archive.operators import computes
from genselfdiff.models.archive.values import check_values
from genselfdiff.models.model_file import load_model
from genselfdiff.models.model_info import EXTRA_FILE
from genselfdiff.models.torchscript import script

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(5.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.to(torch.float32).mean(1, keepdim=True) / 255 + 0 * self.weight.sum()
        return torch.cat((y, 1 - y), 1)


class Saves(Head):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "written.pt")
        return x


class Reads(Head):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_file("secret", False, 8, dtype=torch.uint8)


class Prints(Head):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        print("owned")
        return x


class Seeds(Head):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.ops.aten.manual_seed(1)  # torch.manual_seed is another where dynamo is loaded
        return x


class Forks(Head):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        waiting = torch.jit.fork(torch.relu, x)
        return torch.jit.wait(waiting)


class Profiles(Head):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autograd.profiler.record_function("x"):
            return x + 1


class Restores(Head):
    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, bool]:
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        torch.save(state[0], "written.pt")
        self.weight = state[0]
        self.training = state[1]


class SteersTerminal(Head):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] > 0:
            raise ValueError("\x1b]0;owned\x07")
        return x


@torch.jit.script
class Counter:
    def __init__(self) -> None:
        self.count = 0


class HasClasses(Head):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        counter = Counter()
        return x + counter.count


def scripted(module: nn.Module, info, path: Path) -> Path:
    script(module).save(str(path), _extra_files={EXTRA_FILE: info().to_json()})
    return path


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Saves, "names aten::save"),
        (Reads, "names aten::from_file"),
        (Prints, "names print"),
        (Seeds, "names aten::manual_seed"),
        (Forks, "names fork"),
        (Profiles, "With in its code"),
        (Restores, "brings __getstate__|brings __setstate__"),
        (SteersTerminal, "control characters"),
        (HasClasses, "its class Counter"),
    ],
)
def test_what_does_more_than_compute_is_refused(tmp_path, info, monkeypatch, module, message):
    monkeypatch.chdir(tmp_path)
    path = scripted(module(), info, tmp_path / "model.ts")
    with pytest.raises(ModelError, match=message) as caught:
        load_model(path, "cpu")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == [path]


class Ordinary(nn.Module):
    """Of the layers that segmentation models are made of, some that are written in odd ways."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, padding=1, padding_mode="reflect"),
            nn.BatchNorm2d(8),
            nn.ReLU6(inplace=True),
            nn.Dropout2d(0.2),
            nn.MaxPool2d(2),
        )
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear")
        self.turn = nn.ConvTranspose2d(8, 8, 2, 2)
        self.heads = nn.ModuleDict({"center": nn.Conv2d(11, 2, 1), "edge": nn.Conv2d(11, 2, 1)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.float() / 255
        y = self.encoder(x)
        tokens = self.norm(y.flatten(2).transpose(1, 2))
        mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        y = F.gelu(y + mixed.transpose(1, 2).reshape(y.shape))
        y = torch.cat((self.turn(self.up(y)), x), 1)
        y = F.pad(y, (1, 1, 1, 1), mode="replicate")[:, :, 1:-1, 1:-1]
        total = torch.zeros_like(y[:, :2])
        for head in self.heads.values():
            total += head(y)
        return torch.softmax(total, 1)


@pytest.mark.parametrize("way", ["scripted", "traced", "frozen"])
def test_models_of_ordinary_layers_load(tmp_path, info, way):
    module = Ordinary().eval()
    x = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    if way == "scripted":
        compiled = script(module)
    else:
        compiled = torch.jit.trace(module, x, check_trace=False)
    if way == "frozen":
        compiled = torch.jit.freeze(compiled)
    compiled.save(str(tmp_path / "model.ts"), _extra_files={EXTRA_FILE: info().to_json()})
    torch.testing.assert_close(load_model(tmp_path / "model.ts", "cpu")(x), module(x).detach())


COMPUTING = """
    aten::conv2d aten::add_ aten::softmax aten::format aten::dropout aten::pad aten::warn aten::len
    aten::_convolution aten::__getitem__ aten::rand_like prim::RaiseException gsd::linear_attention
"""
DOING_MORE = """
    aten::save aten::from_file aten::_print aten::set_ aten::manual_seed aten::set_grad_enabled
    aten::wait aten::record_stream aten::_sparse_csr_tensor_unsafe aten::no_such prim::Print
    prim::TimePoint prim::PythonOp prim::rpc_async gsd::no_such quantized::conv2d
    profiler::_record_function_enter
"""


def test_operators_that_compute():
    assert [name for name in COMPUTING.split() if not computes(name)] == []
    assert [name for name in DOING_MORE.split() if computes(name)] == []


def in_module(*lines: str) -> dict[str, str]:
    text = "class M(Module):\n  def forward(self: __torch__.M,\n    x: Tensor) -> Tensor:\n"
    return {"__torch__.py": text + "".join(f"    {line}\n" for line in (*lines, "return x"))}


@pytest.mark.parametrize(
    "schema",
    [
        "aten::zeros.names(int[] size, *, str[]? names, ScalarType? dtype=None) -> Tensor",
        "aten::mean.names_dim(Tensor self, str[1] dim, bool keepdim=False) -> Tensor",
    ],
)
def test_dimensions_of_torch_before_2_13_may_have_names(monkeypatch, schema):
    operator, parsed = schema.partition(".")[0], torch._C.parse_schema(schema)
    monkeypatch.setattr(operators, "_schemas", lambda operator: [parsed])
    assert computes.__wrapped__(operator)


def test_code_tells_its_classes():
    assert check_code(in_module("y = torch.relu(x)", 'w = getattr(self, "0").w')) == {"__torch__.M"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('(x).save("f")', "aten::save"),
        ("f = x.save", "aten::save"),
        ('f = getattr(x, "save")', "aten::save"),
        ("f = getattr(x, y)", "TorchScript does not write"),
        ("t = torch", "names torch"),
        ('getattr(torch, "relu")', "names torch"),
        ("p = ops.profiler", "operators of profiler"),
        ("ops.prim.Print(x)", "prim::Print"),
        ("print = x", "names print"),
        ("os.system(x)", "names os"),
        ("g = getattr", "names getattr"),
        ('exec("1")', "names exec"),
        ("c = __torch__.torch.classes.quantized.Conv2dPackedParamsBase", "quantised"),
        ("ops.quantized.conv2d(x)", "quantized::conv2d"),
        ("y = lambda: x", "Lambda"),
        ("y = [a for a in x]", "ListComp"),
        ('y = f"{x}"', "JoinedStr"),
        ('y = b"x"', "TorchScript does not write"),
        ("import os", "Import"),
        ("y = x if True else x", "IfExp"),
        ("\uff59 = x", "TorchScript does not write"),
        ("y = (", "TorchScript does not write"),
        ("y = " + 3000 * "(" + "x" + 3000 * ")", "TorchScript does not write"),
        ("y = x" + 100_000 * ".a", "TorchScript does not write"),
    ],
)
def test_code_that_is_refused(line, message):
    with pytest.raises(ModelError, match=message):
        check_code(in_module(line))


@pytest.mark.parametrize(
    "text",
    [
        "class M(Module):\n  def __setstate__(self, s: int) -> NoneType:\n    return None\n",
        "class M(Module):\n  def __del__(self) -> NoneType:\n    return None\n",
        "class M:\n  pass\n",
        "class M(Interface):\n  pass\n",
        "class M(Module, metaclass=N):\n  pass\n",
        "class M(Module):\n  def save(self) -> NoneType:\n    return None\n",
        "@torch.relu\nclass M(Module):\n  pass\n",
    ],
)
def test_classes_that_are_refused(text):
    with pytest.raises(ModelError):
        check_code({"__torch__.py": text})


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(path: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def head(tmp_path, info) -> Path:
    return scripted(Head(), info, tmp_path / "head.ts")


STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0" + b"0X\x03\0\0\0cpuK\x05tQ"
"""Pickled: the five float32 that are stored as "0"."""


def tensor(
    storage: bytes = STORAGE, offset: bytes = b"K\0", shape: bytes = b"K\x05", stride=b"K\1"
):
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n"
    geometry = offset + b"(" + shape + b"t(" + stride + b"t"
    return rebuild + b"(" + storage + geometry + b"\x89ccollections\nOrderedDict\n)RtR"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (tensor(), None),
        (tensor(offset=b"K\1", shape=b"K\2", stride=b"K\3"), None),
        (tensor(shape=b"K\0K\x09", stride=b"K\1K\1"), None),
        (tensor(shape=b"K\x06"), "larger than what is stored"),
        (tensor(offset=b"K\1"), "larger than what is stored"),
        (tensor(stride=b"K\2"), "larger than what is stored"),
        (tensor(shape=b"K\x05K\x05", stride=b"K\0K\0"), "larger than what is stored"),
        (tensor(offset=b"J\xff\xff\xff\xff"), "damaged"),
        (tensor(shape=b"\x88"), "damaged"),
        (tensor(shape=b"K\5K\1"), "damaged"),
        (tensor(STORAGE.replace(b"K\x05", b"K\x06")), "not those that are stored"),
        (tensor(STORAGE.replace(b"X\x01\0\0\0" + b"0", b"X\x01\0\0\0" + b"1")), "not those"),
        (tensor(STORAGE.replace(b"Float", b"Double")), "not those that are stored"),
        # The number that torch makes of the name of a type is another one than ours.
        (tensor(STORAGE.replace(b"ctorch\nFloatStorage\n", b"K\x04")), "damaged"),
        (tensor() + tensor() + b"\x86", "not those that are stored"),
        (tensor() + b"q\0h\0\x86", None),
        (b"cos\nsystem\n", "name os.system"),
        (b"cbuiltins\neval\n", "name builtins.eval"),
        (b"ctorch._utils\n_rebuild_sparse_tensor\n", "_rebuild_sparse_tensor"),
        (b"c__torch__\nM\n)\x81}(X\1\0\0\0aK\1ub", None),
        (b"c__torch__\nN\n)\x81}b", "name __torch__.N"),
        (b"c__torch__.torch.classes.quantized\nLinearPackedParamsBase\n", "name __torch__.torch"),
        (b"N0N", "POP"),
        (b"Nr\xff\xff\xff\x7f", "damaged"),
        (b"X\4\0\0\0\x1b[1m", "control characters"),
        (b")" + 100_000 * b"\x85", "too deep"),
        (b"]q\0h\0a", "too deep"),
        (b"", "damaged"),
    ],
)
def test_values(value, message):
    data = b"\x80\x02" + value + b"."
    if message is None:
        check_values(data, {"__torch__.M"}, {"0": 20})
        return
    with pytest.raises(ModelError, match=message):
        check_values(data, {"__torch__.M"}, {"0": 20})


def test_a_tensor_that_would_show_other_memory_is_refused(tmp_path, head):
    content = members(head)
    name = next(name for name in content if name.endswith("/data.pkl"))
    assert content[name].count(b"K\x05") == 2  # its storage and its shape
    content[name] = content[name].replace(b"K\x05", b"M\0\x40")
    with pytest.raises(ModelError, match="not those that are stored"):
        load_model(written(tmp_path / "model.ts", content), "cpu")


class TestArchives:
    @pytest.mark.parametrize(
        "name",
        ["bytecode.pkl", "model.json", "code/other.py", "code/__torch__/../x.py", "attributes.pkl"],
    )
    def test_unknown_members(self, tmp_path, head, name):
        path = written(tmp_path / "model.ts", members(head) | {f"head/{name}": b""})
        with pytest.raises(ModelError, match=f"holds {name}, which no model"):
            load_model(path, "cpu")

    @pytest.mark.parametrize("folder", ["head", "other"])
    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_the_same_name_twice(self, tmp_path, head, folder):
        with zipfile.ZipFile(tmp_path / "model.ts", "w") as archive:
            archive.writestr(f"{folder}/extra/{EXTRA_FILE}", b"{}")
            for name, data in members(head).items():
                archive.writestr(name, data)
        with pytest.raises(ModelError, match=f"holds extra/{EXTRA_FILE} twice"):
            load_model(tmp_path / "model.ts", "cpu")

    @pytest.mark.parametrize("claimed", [None, 100])
    def test_what_would_unpack_to_much_is_not_unpacked(self, tmp_path, head, claimed):
        """Also where the archive claims that it were little."""
        path = tmp_path / "model.ts"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members(head).items():
                blanks = 2**26 * b" " if name.endswith(EXTRA_FILE) else b""
                how = zipfile.ZIP_DEFLATED if blanks else zipfile.ZIP_STORED
                archive.writestr(name, blanks + data, how)
        if claimed:
            data = path.read_bytes()
            size = 2**26 + len(next(d for n, d in members(head).items() if n.endswith(EXTRA_FILE)))
            path.write_bytes(data.replace(struct.pack("<L", size), struct.pack("<L", claimed)))
        tracemalloc.start()
        with pytest.raises(ModelError, match=r"no model has so many|damaged"):
            load_model(path, "cpu")
        assert tracemalloc.get_traced_memory()[1] < 2**24
        tracemalloc.stop()

    def test_compressed_tensors(self, tmp_path, head):
        content = members(head)
        with zipfile.ZipFile(tmp_path / "model.ts", "w") as archive:
            for name, data in content.items():
                packed = zipfile.ZIP_DEFLATED if "/data/" in name else zipfile.ZIP_STORED
                archive.writestr(name, data, packed)
        with pytest.raises(ModelError, match="compressed"):
            load_model(tmp_path / "model.ts", "cpu")

    def test_many_members(self, tmp_path, head):
        more = {f"head/extra/{number}": b"" for number in range(20_000)}
        with pytest.raises(ModelError, match="no model has so many"):
            load_model(written(tmp_path / "model.ts", members(head) | more), "cpu")

    def test_repacked_in_another_way_it_is_the_same_model(self, tmp_path, head):
        """With something before the archive, other folders and order, code not compressed."""
        content = {
            f"x/{name.partition('/')[2]}": data for name, data in reversed(members(head).items())
        }
        path = written(tmp_path / "model.ts", content)
        path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())
        again, first = load_model(path, "cpu"), load_model(head, "cpu")
        x = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
        assert torch.equal(again(x), first(x))
        assert again.digest == first.digest

    def test_another_weight_is_another_model(self, tmp_path, head):
        content = members(head)
        name = next(name for name in content if name.endswith("/data/0"))
        content[name] = torch.zeros(5).numpy().tobytes()
        other = load_model(written(tmp_path / "model.ts", content), "cpu")
        assert other.digest != load_model(head, "cpu").digest

    @pytest.mark.parametrize("at", range(0, 4000, 97))
    def test_damage_is_told_in_one_line(self, tmp_path, head, at):
        data = bytearray(head.read_bytes())
        data[len(data) - 1 - at % len(data)] ^= 0xFF
        (tmp_path / "model.ts").write_bytes(data)
        try:
            load_model(tmp_path / "model.ts", "cpu")
        except ModelError as error:
            assert "\n" not in str(error)
