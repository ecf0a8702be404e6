"""What a prediction must not depend on, and what it may be averaged over."""

import dataclasses
import threading

import numpy as np
import pytest
import torch
from torch import nn

import genselfdiff
from genselfdiff import machine
from genselfdiff.errors import InputError, ModelError
from genselfdiff.inference import predictor as predictor_module
from genselfdiff.inference.predictor import Predictor, read_ahead
from genselfdiff.models.model_file import load_model, save_model
from genselfdiff.models.registry import create_model


def tiles(*shape: int, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (*shape, 3), generator=random, dtype=torch.uint8)
    return pixels.permute(0, 3, 1, 2)


@pytest.fixture(scope="module", params=["fused", "portable"])
def unet_model(request, tmp_path_factory, info):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("models") / f"{request.param}.ts"
    network = create_model("tiny", out_channels=2, width=8).eval()
    save_model(network, info(), path, portable=request.param == "portable")
    return path


@pytest.fixture
def one_thread():
    """As the workers have: with more, oneDNN shares out the rows of a batch."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"], indirect=True)
def test_a_tile_is_the_same_at_every_place_of_a_batch(unet_model, precision, one_thread):
    predictor = Predictor(load_model(unet_model, "cpu"), precision)
    tile = tiles(1, 64, 64)
    expected = predictor(torch.cat([tile] * 3))[0]
    for place in range(3):
        batch = tiles(3, 64, 64, seed=1)
        batch[place] = tile[0]
        assert torch.equal(predictor(batch)[place], expected)


def test_every_batch_has_the_same_shape(
    tmp_path, picture, write_slide, conv_net, info, monkeypatch
):
    save_model(conv_net(), info(3), tmp_path / "model.ts")
    shapes = set()
    run = Predictor._run

    def watched(self, precision, pixels, turns):
        shapes.add(tuple(pixels.shape))
        return run(self, precision, pixels, turns)

    monkeypatch.setattr(Predictor, "_run", watched)
    slide = write_slide(picture(150, 420))  # 9 tiles in a row
    masks = []
    for batch_size in (1, 4):
        output = tmp_path / f"mask{batch_size}.tif"
        result = genselfdiff.segment(
            slide,
            output,
            tmp_path / "model.ts",
            device="cpu",
            precision="float32",
            batch_size=batch_size,
        )
        masks.append((result.tiles, result.pixels))
    assert shapes == {(1, 3, 64, 64), (4, 3, 64, 64)}
    assert masks[0] == masks[1]


class Ramp(nn.Module):
    """Looks right and down: its logits are brightness times a weight that grows both ways."""

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[2], x.shape[3]
        down = torch.arange(height, dtype=x.dtype)[:, None]
        across = torch.arange(width, dtype=x.dtype)
        logit = x[:, :1] * (down + 3 * across) / 64
        return torch.cat((logit, -logit), 1)


@pytest.mark.parametrize("tta", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(16, 16), (16, 24)])
def test_augmentation_is_the_mean_of_views(tmp_path, info, tta, size):
    save_model(Ramp(), info(), tmp_path / "model.ts")
    loaded = load_model(tmp_path / "model.ts", "cpu")
    pixels = tiles(2, *size)
    views = []
    for transposed in (False, True):
        for axes in ((), (2, 3), (3,), (2,)):
            seen = pixels.numpy().swapaxes(2, 3) if transposed else pixels.numpy()
            given = np.flip(loaded(torch.from_numpy(np.flip(seen, axes).copy())).numpy(), axes)
            views.append(given.swapaxes(2, 3) if transposed else given)
    got = Predictor(loaded, "float32", tta)(pixels).numpy()
    np.testing.assert_allclose(got, np.mean(views[:tta], axis=0), atol=1e-6)


def test_eight_views_do_not_care_how_a_tile_lies(tmp_path, info):
    save_model(Ramp(), info(), tmp_path / "model.ts")
    predictor = Predictor(load_model(tmp_path / "model.ts", "cpu"), "float32", 8)
    pixels = tiles(1, 16, 16)
    turned = predictor(pixels.rot90(1, (2, 3))).rot90(-1, (2, 3))
    torch.testing.assert_close(turned, predictor(pixels))


def test_other_numbers_of_views_are_refused(darkness_model):
    with pytest.raises(InputError, match="1, 2, 4 or 8"):
        Predictor(load_model(darkness_model, "cpu"), "float32", 3)


class Gives(nn.Module):
    """In the place of a module that TorchScript has compiled."""

    def __init__(self, answer) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer(x)


def full(*shape, value=0.5, dtype=torch.float32):
    return torch.full(shape, value, dtype=dtype)


@pytest.mark.parametrize("tta", [1, 8])
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: (x, x), "gives tuple"),
        (lambda x: 5, "gives int"),
        (lambda x: torch.zeros([]), r"gives shape \(\)"),
        (lambda x: full(7, 2, 16, 16), r"gives shape \(7, 2, 16, 16\) for 2 images of 16 x 16"),
        (lambda x: full(0, 2, 16, 16), r"gives shape \(0, 2"),
        (lambda x: full(2, 2, 8, 8), r"gives shape \(2, 2, 8, 8\)"),
        (lambda x: full(2, 2, 1, 1), r"gives shape \(2, 2, 1, 1\)"),
        (lambda x: full(2, 3, 16, 16), "gives 3 channels, but names 2 classes"),
        (lambda x: full(2, 2, 16, 16, dtype=torch.complex64), "gives torch.complex64"),
        (lambda x: full(2, 2, 16, 16, value=1, dtype=torch.int64), "gives torch.int64"),
        (lambda x: full(2, 2, 16, 16, value=True, dtype=torch.bool), "gives torch.bool"),
        (lambda x: full(2, 2, 16, 16).to_sparse(), "gives torch.float32, torch.sparse_coo"),
        (lambda x: full(2, 2, 16, 16, value=37.5), "gives values from 37.5 to 37.5"),
        (lambda x: full(2, 2, 16, 16, value=-1), "gives values from -1 to -1"),
        (lambda x: full(2, 2, 16, 16, value=float("nan")), "not a number"),
        (lambda x: full(2, 2, 16, 16, value=float("inf")), "not a number"),
    ],
)
def test_what_is_no_probabilities_is_the_models_fault(darkness_model, answer, message, tta):
    loaded = dataclasses.replace(load_model(darkness_model, "cpu"), module=Gives(answer))
    with pytest.raises(ModelError, match=f"darkness.ts: .*{message}"):
        Predictor(loaded, "float32", tta)(tiles(2, 16, 16))


def test_a_file_that_changes_between_two_devices(darkness_model, info):
    loaded = load_model(darkness_model, "cpu")
    save_model(Ramp(), info(), darkness_model)
    with pytest.raises(ModelError, match="has changed"):
        Predictor(dataclasses.replace(loaded, further=(torch.device("cpu"),)), "float32")


class TestSeveralDevices:
    @pytest.fixture(autouse=True)
    def two_gpus(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    def test_are_named_one_after_the_other(self):
        named = machine.choose_devices("cuda:0, cuda:1")
        assert named == (torch.device("cuda:0"), torch.device("cuda:1"))
        assert machine.choose_devices("cuda:1") == (torch.device("cuda:1"),)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("cuda:0,cuda:2", "cuda:2 is not on this machine"),
            ("cuda:0,cpu", "only GPUs work together"),
            ("cuda,cuda:1", "only GPUs work together"),
            ("cuda:1,cuda:1", "named twice"),
            ("cuda:0,", "no device ''"),
        ],
    )
    def test_bad_names(self, name, message):
        with pytest.raises(InputError, match=message):
            machine.choose_devices(name)

    def test_each_has_a_model_and_workers(self, darkness_model, monkeypatch):
        """With the CPU as the second device: nothing is computed on a GPU here."""
        loaded = load_model(darkness_model, "cpu")
        predictor = Predictor(
            dataclasses.replace(loaded, further=(torch.device("cpu"),)), "bfloat16"
        )
        seen = []
        together = threading.Barrier(2, timeout=600)

        def watched(module, pixels, turns):
            seen.append(module)
            together.wait()
            return torch.full((1, 2, 64, 64), 0.5)

        monkeypatch.setattr(predictor_module, "_mean_view", watched)
        monkeypatch.setattr(predictor, "_parallelism", lambda: (2, 1))
        with predictor.predict_ahead(iter([tiles(1, 64, 64)] * 4)) as predicted:
            assert len(list(predicted)) == 4
        assert len({id(module) for module in seen}) == 2
        assert set(seen) == set(predictor._modules["bfloat16"])


class TestReadAhead:
    def test_order_and_depth(self, monkeypatch):
        monkeypatch.setattr(predictor_module, "_readers", lambda: 4)
        begun = []

        def jobs():
            for i in range(50):
                begun.append(i)
                yield lambda i=i: i

        with read_ahead(jobs(), 4) as items:
            for i, item in enumerate(items):
                assert item == i
                assert len(begun) <= i + 1 + 4
        assert len(begun) == 50

    def test_errors_come_where_the_item_would(self):
        def jobs():
            yield lambda: 1
            yield lambda: 1 // 0

        with read_ahead(jobs(), 4) as items:
            assert next(items) == 1
            with pytest.raises(ZeroDivisionError):
                next(items)

    def test_leaving_early_ends_the_threads(self):
        before = threading.active_count()
        with read_ahead((lambda i=i: i for i in range(1000)), 4) as items:
            assert next(items) == 0
        assert threading.active_count() == before


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({}, "float32"),
        ({"amx_bf16": True}, "bfloat16"),
        ({"avx512_bf16": True}, "float32"),
        ({"avx512_bf16": True, "cpu_name": "Intel(R) Xeon(R)"}, "float32"),
        ({"avx512_bf16": True, "cpu_name": "AMD EPYC"}, "bfloat16"),
        ({"cpu_name": "AMD EPYC"}, "float32"),
    ],
)
def test_auto_takes_bfloat16_on_processors_that_multiply_more_of_it(
    darkness_model, monkeypatch, capabilities, expected
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr(Predictor, "_agrees", lambda self, tiles: True)
    predictor = Predictor(load_model(darkness_model, "cpu"), "auto")
    predictor.choose_precision([])
    assert predictor.precision == expected


def test_torch_2_10_tells_of_amx_alone(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert machine.has_fast_bfloat16(torch.device("cpu"))


@pytest.fixture
def fusing():
    """TorchScript fuses on the CPU as it does on GPUs, from the second call of a module on."""
    before = torch._C._jit_can_fuse_on_cpu(), torch._C._jit_get_te_must_use_llvm_cpu()
    torch._C._jit_override_can_fuse_on_cpu(True)
    torch._C._jit_set_te_must_use_llvm_cpu(False)
    yield
    torch._C._jit_override_can_fuse_on_cpu(before[0])
    torch._C._jit_set_te_must_use_llvm_cpu(before[1])


def test_a_model_s_later_calls_are_as_its_first(tmp_path, info, fusing):
    path = tmp_path / "model.ts"
    save_model(create_model("tiny", out_channels=2, width=8), info(), path, portable=True)
    x = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)

    def fuses(call):
        for _ in range(3):
            call(x)
        return "TensorExprGroup" in str(torch.jit.last_executed_optimized_graph())

    with torch.inference_mode():
        assert fuses(load_model(path, "cpu").module)
    assert not fuses(load_model(path, "cpu"))
    for precision in ("float32", "bfloat16"):
        assert not fuses(Predictor(load_model(path, "cpu"), precision))
