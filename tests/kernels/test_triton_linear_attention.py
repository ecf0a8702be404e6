"""The GPU's linear attention, in Triton's interpreter, against float64."""

import importlib
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from accuracy import assert_accurate

from genselfdiff.kernels import linear_attention
from genselfdiff.kernels.linear_attention.op import gpu_takes
from genselfdiff.kernels.tiles import tiles

SHAPES = [
    # n, c, h, w, heads, features of a head
    (2, 16, 9, 10, 4, 32),
    (1, 80, 13, 11, 3, 16),  # a padded head, and channels that no block divides
    (2, 32, 1, 1, 2, 64),
]


def random_case(shape, dtype, centre):
    generator = torch.Generator().manual_seed(6)
    n, c, h, w, heads, d = shape

    def normal(*size):
        return torch.randn(size, generator=generator)

    inputs = {
        "x": (normal(n, c, h, w) + centre).to(dtype),
        "norm_weight": normal(c),
        "norm_bias": normal(c),
        "qkv_weight": 2.0 * normal(3 * heads * d, c, 1, 1) / c**0.5,
        "out_weight": normal(c, heads * d, 1, 1),
        "out_bias": normal(c),
        "out_norm_weight": normal(c),
        "out_norm_bias": normal(c),
    }
    # Parameters that the matrix products round anyway: so that the truth has them rounded too.
    inputs |= {name: value.to(dtype) for name, value in inputs.items()}
    return inputs, normal(n, c, h, w).to(dtype)


def with_gradients(inputs, grad_y, heads):
    inputs = {name: value.detach().requires_grad_() for name, value in inputs.items()}
    inputs["x"] = inputs["x"].contiguous(memory_format=torch.channels_last)
    y = linear_attention(heads=heads, **inputs)
    grads = torch.autograd.grad(y, list(inputs.values()), grad_y)
    named = {f"gradient of {name}": grad for name, grad in zip(inputs, grads, strict=True)}
    return {"y": y.detach(), **named}


@pytest.fixture
def short_runs(interpreted, monkeypatch):
    """Runs of tokens so short that a small image has several, some of several tiles."""
    module = importlib.import_module("genselfdiff.kernels.linear_attention.triton")

    def shortened(kernel, x):
        tile = tiles(kernel, x)
        return replace(tile, run=max(64, tile.block_t))

    monkeypatch.setattr(module, "tiles", shortened)
    monkeypatch.setattr(module, "NORMED", 1024)
    monkeypatch.setattr(module, "NORMED_BLOCK", 256)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("centre", [0.0, 100.0])
def test_the_triton_kernels_agree_with_float64(short_runs, shape, dtype, centre):
    inputs, grad_y = random_case(shape, dtype, centre)
    inputs["grad_y"] = grad_y

    def run(values):
        values = dict(values)
        return with_gradients(values, values.pop("grad_y"), shape[4])

    ours = run(inputs)
    assert_accurate(ours, run, inputs, times=12 if dtype == torch.float32 else 1.5)
    assert ours["y"].is_contiguous(memory_format=torch.channels_last)


def test_keys_of_very_different_size_stay_finite(short_runs):
    inputs, grad_y = random_case((1, 16, 10, 10, 4, 32), torch.float32, 0.0)
    inputs["x"][:, :, 5:] *= 1e3  # the later runs' keys leave the earlier ones' far behind
    inputs["qkv_weight"] *= 100.0
    for name, value in with_gradients(inputs, grad_y, 4).items():
        assert torch.isfinite(value).all(), name


def test_an_empty_batch_is_allowed(interpreted):
    inputs, grad_y = random_case((0, 16, 4, 4, 4, 32), torch.float32, 0.0)
    found = with_gradients(inputs, grad_y, 4)
    assert found["y"].shape == (0, 16, 4, 4)
    assert (found["gradient of qkv_weight"] == 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm_weight": torch.ones(3)}, "norm_weight must have 16 elements"),
        ({"qkv_weight": torch.ones(48, 16, 1, 1)}, "qkv_weight must have 6144 elements"),
        ({"heads": 3}, "3 heads do not divide 128 features"),
        ({"heads": 16}, "takes heads of 16, 32, 64 or 128 features, 128 in all, not 16 of 8"),
    ],
)
def test_bad_arguments_are_named(interpreted, change, message):
    inputs, _ = random_case((1, 16, 4, 4, 4, 32), torch.float32, 0.0)
    with pytest.raises(RuntimeError, match=message):
        torch.ops.gsd.linear_attention(**({"heads": 4, "eps": 1e-5} | inputs | change))


@pytest.mark.parametrize(
    ("allowed", "precision"), [("tf32", "tf32"), ("ieee", "tf32x3"), ("none", "tf32x3")]
)
def test_float32_products_are_as_precise_as_torch_is_told(monkeypatch, allowed, precision):
    pytest.importorskip("triton", reason="triton is not installed")
    monkeypatch.setattr(torch.backends.cuda, "matmul", SimpleNamespace(fp32_precision=allowed))
    module = importlib.import_module("genselfdiff.kernels.linear_attention.triton")
    assert module._precision() == precision


@pytest.mark.parametrize(
    ("heads", "hidden", "fits"), [(4, 128, True), (3, 48, True), (8, 256, False), (4, 32, False)]
)
def test_heads_that_a_gpu_has_no_room_for_are_known(heads, hidden, fits):
    assert gpu_takes(heads, hidden) == fits
