"""3x3 convolutions: every kernel against float64, and what autograd and packing make of them."""

import pytest
import torch
import torch.nn.functional as F
from accuracy import assert_accurate

from genselfdiff.kernels import conv3x3
from genselfdiff.kernels import convolution_rules as rules
from genselfdiff.kernels.conv3x3 import reference

SHAPES = [
    # n, channels in and out, h, w
    (2, 42, 64, 37, 29),
    (1, 3, 8, 5, 7),  # fewer channels than a register holds
    (1, 1, 1, 1, 1),
    (3, 48, 49, 4, 9),
    (1, 144, 33, 30, 31),
    (2, 20, 100, 13, 6),
    (1, 300, 16, 8, 8),  # summed in parts
]


def channels_last(tensor):
    return tensor.contiguous(memory_format=torch.channels_last)


def random_case(shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(6)
    n, c_in, c_out, h, w = shape

    def normal(*size):
        return torch.randn(size, generator=generator)

    return {
        "x": channels_last(normal(n, c_in, h, w).to(dtype)),
        "weight": normal(c_out, c_in, 3, 3) / (3 * c_in**0.5),
        "bias": normal(c_out),
        "grad_y": channels_last(normal(n, c_out, h, w).to(dtype)),
    }


def with_gradients(inputs):
    inputs = {name: value.detach() for name, value in inputs.items()}
    grad_y = inputs.pop("grad_y")
    inputs = {name: value.requires_grad_() for name, value in inputs.items()}
    y = conv3x3(**inputs)
    grads = torch.autograd.grad(y, list(inputs.values()), grad_y)
    named = {f"gradient of {name}": grad for name, grad in zip(inputs, grads, strict=True)}
    return {"y": y.detach(), **named}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_instruction_set_agrees_with_float64(isa, shape, dtype):
    inputs = random_case(shape, dtype)
    ours = with_gradients(inputs)
    assert_accurate(ours, with_gradients, inputs, times=32 if dtype == torch.float32 else 1)
    assert ours["y"].dtype == dtype
    assert ours["y"].is_contiguous(memory_format=torch.channels_last)


def test_the_error_is_that_of_the_sum_itself(isa):
    """Relative in the norm; the textbook's points have twice as much."""
    x, weight, bias, _ = random_case((1, 128, 64, 40, 40)).values()
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    error = (conv3x3(x, weight, bias) - exact).norm() / exact.norm()
    assert error < 1e-6


@pytest.mark.parametrize("shape", [(5, 24, 40, 21, 23), (1, 130, 200, 9, 10)])
def test_results_do_not_depend_on_threads_or_on_what_memory_held(isa, shape):
    inputs = random_case(shape)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(threads == 2)  # fills new memory with NaN
            results.append(with_gradients(inputs))
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(before)
    for other in results[1:]:
        for name in ("y", "gradient of x", "gradient of weight"):
            assert torch.equal(results[0][name], other[name]), name


def test_an_image_is_the_same_at_every_place_of_a_batch(isa):
    inputs = random_case((1, 20, 40, 30, 27))
    one = conv3x3(inputs["x"], inputs["weight"], inputs["bias"])
    others = random_case((4, 20, 40, 30, 27))["x"]
    for place in range(4):
        batch = others.clone(memory_format=torch.channels_last)
        batch[place] = inputs["x"][0]
        assert torch.equal(conv3x3(batch, inputs["weight"], inputs["bias"])[place], one[0])


@pytest.mark.parametrize("size", [(40, 17), (3, 1), (64, 20)])
def test_packed_weights_are_those_of_plain_torch_and_are_used(isa, size):
    weight = torch.randn(*size, 3, 3)
    packed = torch.ops.gsd.conv3x3_pack(weight)
    torch.testing.assert_close(packed, reference.pack(weight), rtol=1e-6, atol=1e-7)
    turned = weight.transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(torch.ops.gsd.conv3x3_pack(turned), packed)
    x = channels_last(torch.randn(2, size[1], 9, 6))
    expected = torch.ops.gsd.conv3x3(x, weight, None, None)
    assert torch.equal(torch.ops.gsd.conv3x3(x, torch.zeros_like(weight), None, packed), expected)
    with pytest.raises(RuntimeError, match="packed must be what conv3x3_pack makes of weight"):
        torch.ops.gsd.conv3x3(x, weight, None, packed[:-1])


@pytest.mark.parametrize("size", [(0, 8, 4, 4), (2, 8, 0, 4), (2, 8, 4, 0)])
def test_empty_images_are_allowed(backend, size):
    x = channels_last(torch.zeros(size)).requires_grad_()
    weight = torch.ones(16, 8, 3, 3, requires_grad=True)
    if backend != "cpp" and 0 in size[2:]:
        return  # torch's own has no gradient of these
    y = conv3x3(x, weight)
    grad_x, grad_weight = torch.autograd.grad(y.sum(), (x, weight))
    assert y.shape == (size[0], 16, *size[2:])
    assert grad_x.shape == x.shape and not grad_weight.any()


@pytest.mark.parametrize("backend", ["cpp"], indirect=True)
def test_strides_do_not_matter(backend):
    inputs = random_case((2, 8, 9, 6, 7))
    expected = with_gradients(inputs)
    inputs["x"] = inputs["x"].contiguous().repeat_interleave(2, dim=3)[..., ::2]
    inputs["grad_y"] = inputs["grad_y"].repeat_interleave(2, dim=1)[:, ::2]
    inputs["weight"] = channels_last(inputs["weight"])
    for name, value in with_gradients(inputs).items():
        torch.testing.assert_close(value, expected[name], msg=name)


@pytest.mark.parametrize("backend", ["reference", "cpp"], indirect=True)
def test_autocast_and_scripting_leave_the_numbers(backend):
    x, weight, bias, _ = random_case((2, 16, 24, 9, 10)).values()
    expected = F.conv2d(x, weight, bias, padding=1)
    with torch.autocast("cpu", torch.bfloat16):
        found = conv3x3(x, weight, bias)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.03, atol=0.03)

    def call(x, weight, bias):
        # type: (Tensor, Tensor, Tensor) -> Tensor
        return conv3x3(x, weight, bias)

    torch.testing.assert_close(torch.jit.script(call)(x, weight, bias), expected)


def test_the_faster_one_is_taken(monkeypatch):
    """By rules that were measured: see benchmarks/RESULTS.md."""
    monkeypatch.delenv("GSD_KERNELS", raising=False)
    monkeypatch.setattr(rules, "_faster", lambda: (torch.float32,))
    with torch.no_grad():
        for n, dtype, pays in ((8, torch.float32, True), (7, torch.float32, False),
                               (8, torch.bfloat16, False)):  # fmt: skip
            assert rules.pays(dtype, n * 256, packed=False) == pays
        assert rules.pays(torch.float32, 256, packed=True)
        assert not rules.pays(torch.float32, 255, packed=True)


def test_shapes_are_known_without_numbers():
    with torch.device("meta"):
        y = conv3x3(torch.empty(2, 8, 40, 50), torch.empty(16, 8, 3, 3), torch.empty(16))
    assert y.shape == (2, 16, 40, 50)


def test_the_rules_are_told(isa):
    told = rules.told()
    assert ("float32" in told) == (isa != "generic")
    assert ("bfloat16" in told) == (isa in ("avx2", "avx512", "avx512_bf16"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.ones(4, 3, 3, 3)}, "channels"),
        ({"weight": torch.ones(4, 8, 5, 5)}, r"\(out, in, 3, 3\)"),
        ({"x": torch.ones(1, 0, 4, 4), "weight": torch.ones(4, 0, 3, 3)}, r"\(out, in, 3, 3\)"),
        ({"bias": torch.ones(3)}, "bias must have 4 elements"),
        ({"x": torch.ones(8, 4, 4)}, r"\(N, C, H, W\)"),
        ({"x": torch.ones(1, 8, 4, 4).half()}, "takes float32 or bfloat16"),
    ],
)
@pytest.mark.parametrize("backend", ["cpp"], indirect=True)
def test_bad_arguments_are_named(backend, change, message):
    good = {"x": torch.ones(1, 8, 4, 4), "weight": torch.ones(4, 8, 3, 3), "bias": torch.ones(4)}
    with pytest.raises(RuntimeError, match=f"^conv3x3: .*{message}"):
        torch.ops.gsd.conv3x3(*(good | change).values(), None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_operations_are_registered_properly(dtype):
    x, weight, bias, grad_y = random_case((2, 8, 20, 4, 5), dtype).values()
    packed = torch.ops.gsd.conv3x3_pack(weight)
    ops = torch.ops.gsd
    trained = (x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_())
    torch.library.opcheck(ops.conv3x3.default, (*trained, None))
    torch.library.opcheck(ops.conv3x3.default, (x.detach(), weight.detach(), None, packed))
    torch.library.opcheck(ops.conv3x3_pack.default, (weight.detach(),))
    torch.library.opcheck(ops.conv3x3_weight_gradient.default, (grad_y, x.detach()))
