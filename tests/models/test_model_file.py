import errno
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from genselfdiff.errors import InputError, ModelError, OutputError
from genselfdiff.kernels import native
from genselfdiff.models.model_file import load_model, save_model
from genselfdiff.models.model_info import EXTRA_FILE, FORMAT_VERSION, ModelInfo
from genselfdiff.models.registry import create_model
from genselfdiff.models.segmenter import Segmenter, mirrored_indices
from genselfdiff.models.torchscript import script

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.(script|load):DeprecationWarning")

needs_native = pytest.mark.skipif(not native.available(), reason="no native kernels installed")

# Kept for good: TorchScript knows operators by the address of their Python object.
LIBRARY = torch.library.Library("gsd_test", "DEF")
LIBRARY.define("same(Tensor x) -> Tensor")
LIBRARY.impl("same", lambda x: x.clone(), "CompositeExplicitAutograd")


def rewritten(source: Path, target: Path, **changes: object) -> Path:
    """A copy of a model file with other entries in its metadata; None removes one."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith(EXTRA_FILE):
                content = json.loads(data) | changes
                data = json.dumps({k: v for k, v in content.items() if v is not None}).encode()
            new.writestr(name, data)
    return target


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)


def test_round_trip(tmp_path, conv_net, info):
    network, metadata = conv_net(), info(3, mpp=0.25, training={"runs": ["a", "b"], "seed": 1})
    save_model(network, metadata, tmp_path / "model.ts")
    model = load_model(tmp_path / "model.ts", "cpu")
    assert model.info == metadata
    x = images(2, 3, 24, 40)
    with torch.no_grad():
        expected = network(x.float() / 127.5 - 1, torch.zeros(2, dtype=torch.int64)).softmax(1)
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(model(x.double()), expected)


def test_zero_one_scaling(tmp_path, conv_net, info):
    network = conv_net()
    save_model(network, info(3, input_scaling="zero_one"), tmp_path / "model.ts")
    x = images(1, 3, 8, 16)
    with torch.no_grad():
        expected = network(x.float() / 255, torch.zeros(1, dtype=torch.int64)).softmax(1)
    torch.testing.assert_close(load_model(tmp_path / "model.ts", "cpu")(x), expected)


def test_export_leaves_the_network_as_it_is(tmp_path, conv_net, info):
    network = conv_net().train().double()
    save_model(network, info(3), tmp_path / "model.ts")
    assert network.training
    assert all(p.requires_grad and p.dtype == torch.float64 for p in network.parameters())


@pytest.fixture(scope="module")
def flavours(tmp_path_factory, info):
    """``fused.ts`` and ``portable.ts`` of one network that is sure of what it sees, and images."""
    folder = tmp_path_factory.mktemp("flavours")
    torch.manual_seed(0)
    network = create_model("tiny", out_channels=3)
    with torch.no_grad():
        network.net.final_conv[1].weight *= 10
    for name in ("fused", "portable"):
        save_model(network, info(3), folder / f"{name}.ts", portable=name == "portable")
    torch.save(images(2, 3, 21, 35), folder / "x.pt")
    return folder


def predicted(folder, name, dtype=torch.float32):
    model = load_model(folder / f"{name}.ts", "cpu")
    model.module.to(dtype)
    return model(torch.load(folder / "x.pt"))


def in_another_process(folder, preamble, load, **environment):
    """What ``load`` (an expression) gives for the images, after ``preamble``."""
    code = f"""{preamble}
import torch
torch.save(({load})(torch.load("x.pt")), "y.pt")
"""
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=folder,
        check=True,
        env={name: os.environ[name] for name in os.environ if name != "GSD_KERNELS"} | environment,
    )
    return torch.load(folder / "y.pt")


def test_fused_and_portable_agree(flavours):
    fused, portable = predicted(flavours, "fused"), predicted(flavours, "portable")
    torch.testing.assert_close(fused, portable, rtol=0, atol=2e-5)
    labels = portable.argmax(1)
    assert torch.bincount(labels.flatten(), minlength=3).min() > 50, "nothing to tell apart"
    assert (fused.argmax(1) != labels).sum() <= 1, "beyond a tie"


def test_fused_is_as_good_as_portable_in_bfloat16(flavours):
    exact = predicted(flavours, "portable")
    fused, portable = (
        predicted(flavours, name, torch.bfloat16) - exact for name in ("fused", "portable")
    )
    assert 0 < fused.abs().mean() < 1.5 * portable.abs().mean()


WITHOUT_PACKAGE = "import sys; sys.modules['genselfdiff'] = None"


def test_portable_needs_only_torch(flavours):
    found = in_another_process(flavours, WITHOUT_PACKAGE, "torch.jit.load('portable.ts')")
    torch.testing.assert_close(found, predicted(flavours, "portable"))


def test_fused_in_plain_torch_says_what_is_missing(flavours, capfd):
    with pytest.raises(subprocess.CalledProcessError):
        in_another_process(flavours, WITHOUT_PACKAGE, "torch.jit.load('fused.ts')")
    assert "Unknown builtin op: gsd::" in capfd.readouterr().err


@needs_native
def test_fused_needs_only_the_native_library(flavours):
    preamble = (
        f"{WITHOUT_PACKAGE}; import torch; torch.ops.load_library({str(native.build().library)!r})"
    )
    found = in_another_process(flavours, preamble, "torch.jit.load('fused.ts')")
    torch.testing.assert_close(found, predicted(flavours, "fused"), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("preamble", "environment"),
    [
        ("", {"GSD_KERNELS": "reference"}),
        ("import sys; sys.modules['genselfdiff._native'] = None", {}),
    ],
    ids=["refused", "missing"],
)
def test_fused_runs_on_plain_torch_without_native_kernels(flavours, preamble, environment):
    # In float64, which the native kernels refuse.
    load = "__import__('genselfdiff').load_model('fused.ts', 'cpu').module.double()"
    found = in_another_process(flavours, preamble, load, **environment)
    expected = predicted(flavours, "portable", torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_importing_the_kernels_is_enough_for_torch_jit_load(flavours):
    found = in_another_process(flavours, "import genselfdiff.kernels", "torch.jit.load('fused.ts')")
    torch.testing.assert_close(found, predicted(flavours, "fused"), rtol=0, atol=1e-5)


@needs_native
def test_plain_torch_asked_for_too_late_is_an_error(monkeypatch, flavours):
    monkeypatch.setenv("GSD_KERNELS", "reference")
    with pytest.raises(InputError, match="only if it is set before genselfdiff is imported"):
        predicted(flavours, "fused")
    predicted(flavours, "portable")


def test_kernels_that_a_fused_file_cannot_have_are_an_error(monkeypatch, flavours):
    monkeypatch.setenv("GSD_KERNELS", "triton")
    with pytest.raises(InputError, match=r"on a CUDA GPU, not on cpu|triton is not installed"):
        predicted(flavours, "fused")


def test_both_flavours_tell_their_metadata_to_torch(flavours, info):
    for name in ("fused", "portable"):
        extra = {EXTRA_FILE: ""}
        torch.jit.load(flavours / f"{name}.ts", _extra_files=extra)
        assert ModelInfo.from_json(extra[EXTRA_FILE]) == info(3)


def test_fused_weights_are_stored_channels_last(flavours):
    """Then its convolutions give what the operations work on, whoever loads it."""
    module = load_model(flavours / "fused.ts", "cpu").module
    weight = module.network.net.init_conv.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_operations_of_a_later_version_are_told_from_damage(flavours, tmp_path):
    later = tmp_path / "later.ts"
    with zipfile.ZipFile(flavours / "fused.ts") as old, zipfile.ZipFile(later, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"ops.gsd.group_norm_silu", b"ops.gsd.gnu"))
    with pytest.raises(ModelError, match="update genselfdiff"):
        load_model(later, "cpu")


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 30), (7, 8), (8, 8), (17, 23)])
def test_any_size(conv_net, size):
    segmenter = script(Segmenter(conv_net(), "zero_one"))
    y = segmenter(images(2, 3, *size))
    assert y.shape == (2, 3, *size)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.sum(1), torch.ones(2, *size))


def test_padding_is_reflection(conv_net):
    segmenter = Segmenter(conv_net(), "zero_one")
    x = images(1, 3, 13, 14)
    padded = nn.functional.pad(x.float(), (0, 2, 0, 3), mode="reflect")
    torch.testing.assert_close(segmenter(x), segmenter(padded)[:, :, :13, :14])


def test_mirrored_indices():
    assert mirrored_indices(3, 8, torch.device("cpu")).tolist() == [0, 1, 2, 1, 0, 1, 2, 1]
    assert mirrored_indices(1, 3, torch.device("cpu")).tolist() == [0, 0, 0]
    assert mirrored_indices(2, 4, torch.device("cpu")).tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.bfloat16, 5e-2), (torch.float16, 5e-3), (torch.float64, 1e-5)]
)
def test_other_parameter_types(tmp_path, conv_net, info, dtype, tolerance):
    save_model(conv_net(), info(3), tmp_path / "model.ts")
    model = load_model(tmp_path / "model.ts", "cpu")
    x = images(1, 3, 16, 20)
    expected = model(x)
    model.module.to(dtype)
    assert {p.dtype for p in model.module.parameters()} == {dtype}
    for given in (x, x.to(dtype)):
        y = model(given)
        assert y.dtype == torch.float32
        torch.testing.assert_close(y, expected, atol=tolerance, rtol=0.1)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(1, 3, 8, 8, dtype=torch.int32), "uint8 or floating point"),
        (torch.zeros(3, 8, 8), r"\(N, 3, H, W\)"),
        (torch.zeros(1, 4, 8, 8), r"\(N, 3, H, W\)"),
        (torch.zeros(1, 3, 0, 8), "at least 1 x 1"),
    ],
)
def test_wrong_input(conv_net, x, message):
    segmenter = script(Segmenter(conv_net(), "zero_one"))
    with pytest.raises(torch.jit.Error, match=message):
        segmenter(x)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("classes", ["one"]),
        ("classes", ["a", "a"]),
        ("classes", "ab"),
        ("colors", [[0, 0, 0]]),
        ("colors", [[0, 0, 0], [0, 0, 256]]),
        ("colors", [[0, 0, 0], [0, 0, 1.5]]),
        ("mpp", 0),
        ("mpp", "0.5"),
        ("mpp", 1e-300),
        ("mpp", 10**400),
        ("mpp", float("nan")),
        ("tile_size", 100),
        ("tile_size", True),
        ("tile_size", 256.0),
        ("tile_size", 8_000_000),
        ("tile_size", 8 * 10**400),
        ("input_scaling", "none"),
        ("input_scaling", []),
        ("input_scaling", {}),
        ("architecture", []),
        ("training", "x"),
        ("licence", 3),
        ("format_version", "1"),
    ],
)
def test_metadata_is_checked(info, field, value):
    content = json.loads(info().to_json()) | {field: value}
    with pytest.raises(ModelError, match=f"'{field}'") as caught:
        ModelInfo.from_json(json.dumps(content))
    assert "\n" not in str(caught.value)


def test_metadata_with_missing_and_unknown_fields(info):
    content = json.loads(info().to_json())
    with pytest.raises(ModelError, match="'surprise' is unknown"):
        ModelInfo.from_json(json.dumps(content | {"surprise": 1}))
    del content["mpp"]
    with pytest.raises(ModelError, match="'mpp' is missing"):
        ModelInfo.from_json(json.dumps(content))
    for text in ("{", "[]", "{}", b"\xff", 100_000 * "[", "9" * 5000):
        with pytest.raises(ModelError, match=EXTRA_FILE):
            ModelInfo.from_json(text)


def test_files_that_are_no_models(tmp_path, conv_net, info):
    good = tmp_path / "good.ts"
    save_model(conv_net(classes=2), info(), good)

    text = tmp_path / "text.ts"
    text.write_text("hello")
    checkpoint = tmp_path / "weights.pt"
    torch.save(conv_net().state_dict(), checkpoint)
    foreign = tmp_path / "foreign.ts"
    script(nn.Conv2d(3, 2, 1)).save(str(foreign))
    truncated = tmp_path / "truncated.ts"
    truncated.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    newer = rewritten(good, tmp_path / "newer.ts", format_version=FORMAT_VERSION + 1)
    missing = rewritten(good, tmp_path / "missing.ts", classes=None)

    run = tmp_path / "run"
    run.mkdir()
    (run / "config.toml").touch()

    for path, message in (
        (tmp_path / "absent.ts", "no such"),
        (tmp_path, r"a folder that holds no model: .*model\.safetensors and gsd\.json"),
        (run, "a run folder: 'gsd export"),
        (text, "not a model file"),
        (checkpoint, "a checkpoint without gsd.json"),
        (foreign, "a TorchScript file without gsd.json"),
        (truncated, "damaged"),
        (newer, "update genselfdiff"),
        (missing, "'classes' is missing"),
    ):
        with pytest.raises(ModelError, match=message) as caught:
            load_model(path, "cpu")
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


class Nothing(torch.nn.Module):
    @torch.jit.export
    def compute(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_a_model_without_forward_is_refused(tmp_path, info):
    path = tmp_path / "m.ts"
    torch.jit.script(Nothing()).save(str(path), _extra_files={"gsd.json": info(2).to_json()})
    with pytest.raises(ModelError, match=r"m\.ts: has no forward method"):
        load_model(path, "cpu")


def test_a_flipped_bit_is_noticed(tmp_path, conv_net, info):
    path = tmp_path / "model.ts"
    save_model(conv_net(classes=2), info(), path)
    weights = conv_net(classes=2).layers[0].bias.detach().numpy().tobytes()
    data = bytearray(path.read_bytes())
    data[data.index(weights) + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="damaged"):
        load_model(path, "cpu")


def test_channels_must_be_the_classes(tmp_path, conv_net, info):
    with pytest.raises(ModelError, match="3 channels, but 2 classes"):
        save_model(conv_net(classes=3), info(2), tmp_path / "model.ts")
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_does_not_compile(tmp_path, info):
    class Lambda(nn.Module):
        def forward(self, x, t):
            return (lambda y: y)(x)

    with pytest.raises(ModelError, match="cannot be exported") as caught:
        save_model(Lambda(), info(), tmp_path / "model.ts")
    assert "\n" not in str(caught.value)


def test_operators_beyond_torch_are_refused(tmp_path, info):
    class Custom(nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return torch.ops.gsd_test.same(x)[:, :2]

    with pytest.raises(ModelError, match="gsd_test::same"):
        save_model(Custom(), info(), tmp_path / "model.ts")


@pytest.mark.parametrize("name", ["fused", "portable"])
def test_an_exported_file_does_not_tell_where_it_was_made(flavours, name):
    folders = [str(Path(file).parent).encode() for file in (torch.__file__, native.__file__)]
    with zipfile.ZipFile(flavours / f"{name}.ts") as archive:
        for member in archive.namelist():
            assert not member.endswith(".debug_pkl")
            data = archive.read(member)
            assert not any(folder in data for folder in [*folders, str(flavours).encode()])
            if "/data/" in member:  # where torch puts tensors, so that they can be mapped
                info = archive.getinfo(member)
                assert (info.header_offset + 30 + len(member) + len(info.extra)) % 64 == 0


def test_a_full_disk_is_told(tmp_path, conv_net, info, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfileobj", fail)
    with pytest.raises(OutputError, match="cannot be written: No space"):
        save_model(conv_net(), info(3), tmp_path / "model.ts")
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_does_more_than_compute_is_not_exported(tmp_path, info):
    class Saves(nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            if x.shape[0] > 1:
                torch.save(x, "written.pt")
            return x[:, :2]

    with pytest.raises(ModelError, match="cannot be exported: it names aten::save"):
        save_model(Saves(), info(), tmp_path / "model.ts")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (torch.rand(1, 3, 8, 8), True),
        (2 * torch.rand(1, 3, 8, 8) - 1, True),
        (255 * torch.rand(1, 3, 8, 8), False),
        (torch.zeros(1, 3, 8, 8), False),
        (torch.ones(1, 3, 8, 8, dtype=torch.uint8), False),
    ],
)
def test_images_in_another_range_are_told(darkness_model, caplog, images, told):
    load_model(darkness_model, "cpu")(images)
    assert ("takes images in 0..255" in caplog.text) == told


def test_unwritable_target(tmp_path, conv_net, info):
    with pytest.raises(OutputError, match="missing"):
        save_model(conv_net(), info(3), tmp_path / "missing" / "model.ts")


def test_unknown_device(darkness_model):
    with pytest.raises(InputError, match="use cpu"):
        load_model(darkness_model, "abacus")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="not on this machine"):
            load_model(darkness_model, "cuda")


def test_the_compiler_of_torch_stays_out():
    # Its import takes 70 MB and longer than everything else that a run begins with.
    program = (
        "import sys, genselfdiff.segmenting.one_slide\n"
        "sys.exit('torch._dynamo.convert_frame' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=600).returncode == 0
