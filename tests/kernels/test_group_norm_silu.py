"""GroupNorm and SiLU: the definition, and the native kernel against float64."""

import pytest
import torch
import torch.nn.functional as F
from accuracy import assert_accurate

from genselfdiff.kernels import group_norm_silu
from genselfdiff.kernels.group_norm_silu import reference

SHAPES = [
    # n, c, h, w, groups
    (2, 64, 16, 16, 8),
    (1, 8, 5, 7, 8),  # fewer channels than a register holds
    (3, 24, 33, 40, 8),
    (2, 16, 1, 1, 1),
    (1, 200, 40, 41, 4),
    (1, 48, 61, 67, 1),
]


def random_case(shape, dtype=torch.float32, centre=0.0):
    generator = torch.Generator().manual_seed(4)
    n, c, h, w, _ = shape

    def normal(*size):
        return torch.randn(size, generator=generator)

    return {
        "x": (normal(n, c, h, w) + centre).to(dtype),
        "weight": normal(c),
        "bias": normal(c),
        "shift": normal(n, c),
        "residual": normal(n, c, h, w).to(dtype),
    }, normal(n, c, h, w).to(dtype)


def channels_last(tensor):
    return tensor.contiguous(memory_format=torch.channels_last)


def with_gradients(inputs, grad_y, groups):
    inputs = {
        name: (channels_last(value) if value.dim() == 4 else value).detach().requires_grad_()
        for name, value in inputs.items()
    }
    y = group_norm_silu(groups=groups, **inputs)
    grads = torch.autograd.grad(y, list(inputs.values()), channels_last(grad_y))
    named = {f"gradient of {name}": grad for name, grad in zip(inputs, grads, strict=True)}
    return {"y": y.detach(), **named}


def double(inputs):
    return {name: value.double() for name, value in inputs.items()}


def compare(shape, dtype, centre, parts):
    """Compare the kernels in force with float64."""
    inputs, grad_y = random_case(shape, dtype, centre)
    for part in {"shift", "residual"} - set(parts):
        del inputs[part]

    def run(values):
        values = dict(values)
        return with_gradients(values, values.pop("grad_y"), shape[4])

    inputs["grad_y"] = grad_y
    ours = run(inputs)
    assert_accurate(ours, run, inputs, times=6 if dtype == torch.float32 else 1)
    assert ours["y"].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("centre", [0.0, 100.0])
@pytest.mark.parametrize("parts", [(), ("shift",), ("residual",), ("shift", "residual")])
def test_every_instruction_set_agrees_with_float64(isa, shape, dtype, centre, parts):
    compare(shape, dtype, centre, parts)


@pytest.mark.parametrize("shape", [(2, 24, 19, 17, 8), (1, 72, 3, 2, 1), (2, 8, 1, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("centre", [0.0, 100.0])
@pytest.mark.parametrize("parts", [(), ("shift", "residual")])
def test_the_triton_kernels_agree_with_float64(interpreted, shape, dtype, centre, parts):
    compare(shape, dtype, centre, parts)


def test_triton_s_statistics_survive_a_first_tile_that_is_unlike_the_rest(interpreted):
    x = torch.randn(1, 8, 33, 32)
    x[:, :, :1] = 1000.0  # of each run of tokens, the squares are taken about its first tile's mean
    x[:, :, 9:] += 100.0
    y, mean, rstd = torch.ops.gsd.group_norm_silu(
        channels_last(x), torch.ones(8), torch.zeros(8), 4, None, None, 1e-5
    )
    exact = reference.forward(x.double(), torch.ones(8), torch.zeros(8), 4, None, None, 1e-5)
    for name, found, wanted in zip(("y", "mean", "rstd"), (y, mean, rstd), exact, strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=2e-6, atol=2e-6, msg=name)


@pytest.mark.parametrize("value", [-1e4, -90.0, 0.0, 90.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_huge_values_and_constant_planes_stay_finite(isa, value, dtype):
    inputs, grad_y = random_case((2, 16, 8, 8, 4), dtype)
    inputs["x"] = torch.full_like(inputs["x"], value)
    inputs["bias"] = torch.linspace(-200, 200, 16)
    found = with_gradients(inputs, grad_y, 4)
    for name, tensor in found.items():
        assert torch.isfinite(tensor).all(), name
    without = found["y"] - inputs["residual"] - inputs["shift"][:, :, None, None]
    expected = F.silu(inputs["bias"])[None, :, None, None].expand_as(without)
    torch.testing.assert_close(without.float(), expected, rtol=0.02, atol=0.05)


def test_the_backward_in_closed_form_is_that_of_autograd():
    inputs, grad_y = random_case((2, 12, 5, 6, 3), torch.float64)
    inputs = double(inputs)
    expected = with_gradients(inputs, grad_y, 3)
    _, mean, rstd = reference.forward(**inputs, groups=3, eps=1e-5)
    found = reference.backward(grad_y, inputs["x"], inputs["weight"], inputs["bias"], mean, rstd)
    for name, grad in zip(("x", "weight", "bias", "shift"), found, strict=True):
        torch.testing.assert_close(grad, expected[f"gradient of {name}"], rtol=1e-9, atol=1e-10)


def test_results_do_not_depend_on_threads_or_on_what_memory_held(isa):
    inputs, grad_y = random_case((2, 24, 70, 71, 8), torch.bfloat16)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(threads == 2)  # fills new memory with NaN
            results.append(with_gradients(inputs, grad_y, 8))
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(before)
    for other in results[1:]:
        for name, value in results[0].items():
            assert torch.equal(value, other[name]), name


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.contiguous(),
        lambda x: x.repeat_interleave(2, dim=3)[..., ::2],
        lambda x: channels_last(x.repeat_interleave(2, dim=1))[:, ::2],
    ],
    ids=["contiguous", "every other column", "every other channel"],
)
def test_strides_do_not_matter(backend, view):
    inputs, _ = random_case((2, 16, 9, 10, 4))
    expected = reference.group_norm_silu(groups=4, **inputs)
    inputs |= {name: view(inputs[name]) for name in ("x", "residual")}
    torch.testing.assert_close(group_norm_silu(groups=4, **inputs), expected)


def test_mixed_types_give_what_plain_torch_gives(monkeypatch):
    inputs, _ = random_case((2, 16, 9, 10, 4), torch.bfloat16)
    inputs["x"] = channels_last(inputs["x"])
    inputs["residual"] = channels_last(inputs["residual"].float())
    monkeypatch.delenv("GSD_KERNELS", raising=False)
    assert group_norm_silu(groups=4, **inputs).dtype == torch.float32


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("of_parameters", [torch.float32, torch.bfloat16, torch.float64])
def test_the_result_has_the_dtype_of_x(monkeypatch, memory_format, dtype, of_parameters):
    inputs, _ = random_case((2, 16, 9, 10, 4), dtype)
    exact = reference.group_norm_silu(groups=4, **double(inputs))
    for name in ("weight", "bias", "shift"):
        inputs[name] = inputs[name].to(of_parameters)
    inputs["x"] = inputs["x"].contiguous(memory_format=memory_format)
    for choice in ("auto", "reference"):
        monkeypatch.setenv("GSD_KERNELS", choice)
        found = group_norm_silu(groups=4, **inputs)
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), exact, rtol=0.03, atol=0.03)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_one_element_is_no_group(backend, memory_format):
    x = torch.randn(1, 8, 1, 1).contiguous(memory_format=memory_format)
    with pytest.raises(ValueError, match="group_norm_silu: expected more than 1 value a group"):
        group_norm_silu(x, torch.ones(8), torch.zeros(8), 8)
    with pytest.raises(ValueError, match="more than 1 value"):
        F.group_norm(x, 8)
    both = torch.cat((x, x))  # which torch takes
    y = group_norm_silu(channels_last(both), torch.ones(8), torch.linspace(-1, 1, 8), 8)
    # What rounding leaves of x - mean is magnified by 1 / sqrt(eps).
    torch.testing.assert_close(y[0, :, 0, 0], F.silu(torch.linspace(-1, 1, 8)), rtol=0, atol=1e-4)


def test_autocast_and_scripting_leave_the_numbers(backend):
    inputs, _ = random_case((2, 16, 9, 10, 4), torch.bfloat16)
    inputs = {k: channels_last(v) if v.dim() == 4 else v for k, v in inputs.items()}
    expected = reference.group_norm_silu(groups=4, **double(inputs)).float()
    with torch.autocast("cpu", torch.bfloat16):
        found = group_norm_silu(groups=4, **inputs)
    torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.02)

    def call(x, weight, bias, shift, residual):
        # type: (Tensor, Tensor, Tensor, Tensor, Tensor) -> Tensor
        return group_norm_silu(x, weight, bias, 4, shift, residual)

    found = torch.jit.script(call)(**{name: value.float() for name, value in inputs.items()})
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.ones(3)}, "weight"),
        ({"groups": 3}, "divi"),
        ({"residual": torch.zeros(2, 8, 4, 5)}, "residual|size of tensor"),
        ({"shift": torch.zeros(2, 3)}, "shift|size of tensor"),
    ],
)
def test_bad_arguments_are_named(backend, change, message):
    x = channels_last(torch.randn(2, 8, 4, 4))
    good = {"x": x, "weight": torch.ones(8), "bias": torch.zeros(8), "groups": 4}
    with pytest.raises(RuntimeError, match=message):
        group_norm_silu(**(good | change))


def test_an_empty_batch_is_allowed(backend):
    x = channels_last(torch.zeros(0, 8, 4, 4)).requires_grad_()
    y = group_norm_silu(x, torch.ones(8), torch.zeros(8), 4)
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert grad.shape == y.shape == x.shape


def test_a_second_derivative_is_refused_clearly():
    inputs, _ = random_case((1, 8, 3, 3, 4))
    x = channels_last(inputs["x"]).requires_grad_()
    y, _, _ = torch.ops.gsd.group_norm_silu(
        x, inputs["weight"], inputs["bias"], 4, None, None, 1e-5
    )
    (grad,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="group_norm_silu has no second derivative"):
        torch.autograd.grad(grad.square().sum(), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("full", [False, True])
def test_the_operations_are_registered_properly(dtype, full):
    inputs, grad_y = random_case((2, 8, 4, 5, 4), dtype)
    inputs = {k: channels_last(v) if v.dim() == 4 else v for k, v in inputs.items()}
    shift, residual = (inputs["shift"], inputs["residual"]) if full else (None, None)
    x, weight, bias = inputs["x"], inputs["weight"], inputs["bias"]
    torch.library.opcheck(
        torch.ops.gsd.group_norm_silu.default,
        (x.requires_grad_(), weight.requires_grad_(), bias, 4, shift, residual, 1e-5),
    )
    mean, rstd = torch.zeros(2, 4), torch.ones(2, 4)
    torch.library.opcheck(
        torch.ops.gsd.group_norm_silu_backward.default,
        (channels_last(grad_y), x.detach(), weight.detach(), bias, mean, rstd),
    )


def test_compiles_in_one_graph(backend):
    inputs, _ = random_case((2, 8, 4, 5, 4))
    x = channels_last(inputs["x"]).requires_grad_()

    def call(x):
        return group_norm_silu(x * 2.0, inputs["weight"], inputs["bias"], 4)

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    (one,) = torch.autograd.grad(compiled(x).square().sum(), x)
    (other,) = torch.autograd.grad(call(x).square().sum(), x)
    torch.testing.assert_close(one, other)
