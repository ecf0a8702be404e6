"""4x4 convolutions of stride 2: the weights' gradient against float64, and what leads to it."""

import pytest
import torch
from accuracy import assert_accurate

from genselfdiff.kernels import convolution_rules as rules
from genselfdiff.kernels.conv4x4 import reference
from genselfdiff.kernels.conv4x4.op import conv4x4

SHAPES = [
    # n, channels in and out, h, w of x
    (2, 42, 20, 38, 26),
    (1, 3, 8, 2, 2),
    (3, 16, 17, 4, 10),
    (1, 64, 32, 6, 260),  # rows of more pixels than are summed at once
]


def channels_last(tensor):
    return tensor.contiguous(memory_format=torch.channels_last)


def random_case(shape, enlarge, dtype=torch.float32):
    generator = torch.Generator().manual_seed(6)
    n, c_in, c_out, h, w = shape

    def normal(*size):
        return torch.randn(size, generator=generator)

    size = (2 * h, 2 * w) if enlarge else (h // 2, w // 2)
    channels = (c_in, c_out) if enlarge else (c_out, c_in)
    return {
        "x": channels_last(normal(n, c_in, h, w).to(dtype)),
        "weight": normal(*channels, 4, 4) / (4 * c_in**0.5),
        "bias": normal(c_out),
        "grad_y": channels_last(normal(n, c_out, *size).to(dtype)),
    }


def with_gradients(inputs, enlarge):
    inputs = {name: value.detach() for name, value in inputs.items()}
    grad_y = inputs.pop("grad_y")
    inputs = {name: value.requires_grad_() for name, value in inputs.items()}
    y = conv4x4(**inputs, enlarge=enlarge)
    grads = torch.autograd.grad(y, list(inputs.values()), grad_y)
    named = {f"gradient of {name}": grad for name, grad in zip(inputs, grads, strict=True)}
    return {"y": y.detach(), **named}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("enlarge", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_instruction_set_agrees_with_float64(isa, shape, enlarge, dtype):
    inputs = random_case(shape, enlarge, dtype)
    ours = with_gradients(inputs, enlarge)
    times = 32 if dtype == torch.float32 else 1
    assert_accurate(ours, lambda inputs: with_gradients(inputs, enlarge), inputs, times=times)
    assert ours["y"].dtype == dtype
    assert ours["gradient of weight"].dtype == torch.float32


@pytest.mark.parametrize("enlarge", [False, True])
def test_odd_sizes_are_torchs(isa, enlarge):
    inputs = random_case((2, 8, 5, 9, 7), enlarge)
    ours = with_gradients(inputs, enlarge)
    assert_accurate(ours, lambda inputs: with_gradients(inputs, enlarge), inputs, times=32)


def test_the_gradient_depends_neither_on_threads_nor_on_what_memory_held(isa):
    case = random_case((3, 20, 36, 22, 18), enlarge=False)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(threads == 2)  # fills new memory with NaN
            results.append(torch.ops.gsd.conv4x4_weight_gradient(case["grad_y"], case["x"]))
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(before)
    assert all(torch.equal(results[0], other) for other in results[1:])


def test_empty_batches_have_no_gradient(isa):
    small, large = torch.zeros(0, 5, 2, 3), torch.zeros(0, 7, 4, 6)
    gradient = torch.ops.gsd.conv4x4_weight_gradient(small, large)
    assert gradient.shape == (5, 7, 4, 4) and not gradient.any()


def test_it_is_taken_where_it_is_faster(monkeypatch):
    monkeypatch.setattr(rules, "_isa", lambda: "avx2")
    assert rules.strided_pays(torch.float32) and not rules.strided_pays(torch.bfloat16)
    monkeypatch.setattr(rules, "_isa", lambda: "avx512")
    assert not rules.strided_pays(torch.float32)


@pytest.mark.parametrize("enlarge", [False, True])
def test_scripting_and_what_needs_no_gradient_are_torchs(isa, enlarge):
    x, weight, bias, _ = random_case((2, 16, 24, 8, 10), enlarge).values()
    expected = reference.conv4x4(x, weight, bias, enlarge)
    assert torch.equal(conv4x4(x, weight, bias, enlarge), expected)

    def call(x, weight, bias, enlarge):
        # type: (Tensor, Tensor, Tensor, bool) -> Tensor
        return conv4x4(x, weight, bias, enlarge)

    torch.testing.assert_close(torch.jit.script(call)(x, weight, bias, enlarge), expected)


@pytest.mark.parametrize("size", [(2, 7, 4, 5), (3, 7, 4, 6), (2, 7, 6, 6)])
def test_images_that_do_not_fit_are_refused(isa, size):
    with pytest.raises(RuntimeError, match="small must have half the size of large"):
        torch.ops.gsd.conv4x4_weight_gradient(torch.zeros(2, 5, 2, 3), torch.zeros(size))


def test_the_operations_are_registered_properly():
    x, weight, bias, grad_y = random_case((2, 8, 20, 4, 6), enlarge=False).values()
    trained = (x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_())
    torch.library.opcheck(torch.ops.gsd.conv4x4.default, (*trained, False))
    gradient = torch.ops.gsd.conv4x4_weight_gradient.default
    torch.library.opcheck(gradient, (grad_y, x.detach()))
