"""Linear attention: the published form, and the native kernel against float64."""

from functools import partial

import baselines
import pytest
import torch
from accuracy import assert_accurate

from genselfdiff.errors import GsdError
from genselfdiff.kernels import linear_attention, native
from genselfdiff.kernels.linear_attention import reference

HEADS, HEAD_DIM = 4, 32
SHAPES = [
    # n, c, h, w, heads, features of a head
    (2, 24, 9, 11, 4, 32),
    (1, 64, 33, 40, 4, 32),  # several runs
    (3, 40, 1, 1, 4, 32),
    (1, 70, 20, 21, 2, 16),  # channels that fill no vector
    (2, 128, 24, 25, 4, 32),
]


def random_case(shape, dtype=torch.float32, centre=0.0):
    """Inputs by name, and an upstream gradient; k and q are large enough to be peaked."""
    generator = torch.Generator().manual_seed(5)
    n, c, h, w, heads, size = shape
    hidden = heads * size

    def normal(*sizes):
        return torch.randn(sizes, generator=generator)

    inputs = {
        "x": normal(n, c, h, w) + centre,
        "norm_weight": normal(c),
        "norm_bias": normal(c),
        "qkv_weight": 2 * normal(3 * hidden, c, 1, 1) * c**-0.5,
        "out_weight": 3 * normal(c, hidden, 1, 1) * hidden**-0.5,
        "out_bias": normal(c),
        "out_norm_weight": normal(c),
        "out_norm_bias": normal(c),
    }
    inputs = {name: value.to(dtype) for name, value in inputs.items()}
    inputs["x"] = channels_last(inputs["x"])
    return inputs, channels_last(normal(n, c, h, w).to(dtype))


def channels_last(tensor):
    return tensor.contiguous(memory_format=torch.channels_last)


def double(inputs):
    return {name: value.double() for name, value in inputs.items()}


def with_gradients(inputs, grad_y, heads):
    inputs = {name: value.detach().requires_grad_() for name, value in inputs.items()}
    y = linear_attention(**inputs, heads=heads)
    grads = torch.autograd.grad(y, list(inputs.values()), grad_y)
    named = {f"gradient of {name}": grad for name, grad in zip(inputs, grads, strict=True)}
    return {"y": y.detach(), **named}


@pytest.mark.parametrize("shape", [(2, 16, 8, 8), (1, 24, 5, 7), (3, 8, 1, 1)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_token_major_form_is_the_published_one(shape, channels_last):
    channels = shape[1]
    hidden = HEADS * HEAD_DIM
    sizes = {
        "x": shape,
        "norm_weight": (channels,),
        "norm_bias": (channels,),
        "qkv_weight": (3 * hidden, channels, 1, 1),
        "out_weight": (channels, hidden, 1, 1),
        "out_bias": (channels,),
        "out_norm_weight": (channels,),
        "out_norm_bias": (channels,),
    }
    arguments = {name: torch.randn(size, dtype=torch.float64) for name, size in sizes.items()}
    if channels_last:
        arguments["x"] = arguments["x"].contiguous(memory_format=torch.channels_last)
    for value in arguments.values():
        value.requires_grad_()
    ours = linear_attention(*arguments.values(), HEADS)
    theirs = baselines.linear_attention(*arguments.values(), HEADS)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    upstream = torch.randn(shape, dtype=torch.float64)
    a = torch.autograd.grad(ours, list(arguments.values()), upstream)
    b = torch.autograd.grad(theirs, list(arguments.values()), upstream)
    for name, ga, gb in zip(arguments, a, b, strict=True):
        torch.testing.assert_close(ga, gb, rtol=1e-7, atol=1e-8, msg=f"gradient of {name}")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("centre", [0.0, 100.0])
def test_every_instruction_set_agrees_with_float64(isa, shape, dtype, centre):
    inputs, grad_y = random_case(shape, dtype, centre)
    inputs["grad_y"] = grad_y

    def run(values):
        values = dict(values)
        return with_gradients(values, values.pop("grad_y"), shape[4])

    ours = run(inputs)
    # The numbers go through two norms, two softmaxes and three products, each of which rounds.
    assert_accurate(ours, run, inputs, times=12 if dtype == torch.float32 else 1.5)
    assert ours["y"].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("heads", [1, 4])
def test_the_backward_in_closed_form_is_that_of_autograd(heads):
    inputs, grad_y = random_case((2, 12, 5, 6, heads, 8), torch.float64)
    expected = with_gradients(inputs, grad_y, heads)
    _, *statistics = reference.forward(**inputs, heads=heads, eps=1e-5)
    found = reference.backward(grad_y, **inputs, **dict(zip(STATISTICS, statistics, strict=True)))
    for name, grad in zip(inputs, found, strict=True):
        torch.testing.assert_close(grad, expected[f"gradient of {name}"], rtol=1e-9, atol=1e-10)


STATISTICS = ("moments", "k_lse", "context")


def test_statistics_are_those_of_the_reference(isa):
    inputs, _ = random_case((2, 24, 19, 21, 4, 32))
    found = torch.ops.gsd.linear_attention(*inputs.values(), 4, 1e-5)
    expected = reference.forward(**double(inputs), heads=4, eps=1e-5)
    for name, one, other in zip(("y", *STATISTICS), found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gain", [1e-6, 1e3])
def test_keys_of_any_size_stay_finite(isa, dtype, gain):
    """With large ones the largest k moves, and exponentials of the others underflow."""
    inputs, grad_y = random_case((1, 16, 20, 20, 4, 32), dtype)
    inputs["qkv_weight"] *= gain
    inputs["x"] *= torch.linspace(0.1, 10, 20)[:, None].to(dtype)
    for name, value in with_gradients(inputs, grad_y, 4).items():
        assert torch.isfinite(value).all(), name


def test_a_constant_image_and_nan_are_told_apart(isa):
    inputs, grad_y = random_case((1, 16, 8, 8, 4, 32))
    inputs["x"] = channels_last(torch.full_like(inputs["x"], 3.0))
    assert torch.isfinite(with_gradients(inputs, grad_y, 4)["y"]).all()
    inputs["x"][0, 5, 3, 2] = torch.nan
    assert torch.isnan(linear_attention(**inputs, heads=4)).all()


def test_results_do_not_depend_on_threads_or_on_what_memory_held(isa):
    inputs, grad_y = random_case((2, 24, 40, 71, 4, 32), torch.bfloat16)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(threads == 2)  # fills new memory with NaN
            results.append(with_gradients(inputs, grad_y, 4))
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
    inputs, _ = random_case((2, 16, 9, 10, 4, 32))
    expected = reference.linear_attention(**inputs, heads=4)
    inputs["x"] = view(inputs["x"])
    torch.testing.assert_close(linear_attention(**inputs, heads=4), expected, rtol=1e-4, atol=1e-5)


def test_autocast_and_scripting_leave_the_numbers(backend):
    inputs, _ = random_case((2, 16, 9, 10, 4, 32))
    expected = reference.linear_attention(**double(inputs), heads=4).float()
    with torch.autocast("cpu", torch.bfloat16):
        found = linear_attention(**inputs, heads=4)
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.1)
    scripted = torch.jit.script(linear_attention)
    torch.testing.assert_close(scripted(**inputs, heads=4), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm_weight": torch.ones(3)}, "norm_weight|weight"),
        ({"qkv_weight": torch.ones(384, 7, 1, 1)}, "qkv_weight|shapes cannot be multiplied"),
        ({"out_bias": torch.ones(3)}, "out_bias|size of tensor"),
    ],
)
def test_bad_arguments_are_named(backend, change, message):
    inputs, _ = random_case((2, 16, 9, 10, 4, 32))
    with pytest.raises(RuntimeError, match=message):
        linear_attention(**(inputs | change), heads=4)


def test_heads_that_the_kernel_does_not_take_run_in_plain_torch(monkeypatch):
    inputs, _ = random_case((1, 16, 4, 4, 4, 8))
    monkeypatch.delenv("GSD_KERNELS", raising=False)
    found = linear_attention(**inputs, heads=4)
    torch.testing.assert_close(found, reference.linear_attention(**inputs, heads=4))
    monkeypatch.setenv("GSD_KERNELS", "cpp")
    with pytest.raises(GsdError, match=r"multiple of 16|no native kernels"):
        linear_attention(**inputs, heads=4)


@pytest.mark.skipif(not native.available(), reason="no native kernels installed")
def test_training_takes_plain_torch_where_that_is_faster(monkeypatch):
    if native.selected_isa() == "amx":
        pytest.skip("the kernel is faster here")
    inputs, _ = random_case((1, 256, 4, 4, 4, 32))
    inputs["qkv_weight"].requires_grad_()
    functions = {}
    for choice in ("auto", "cpp"):
        monkeypatch.setenv("GSD_KERNELS", choice)
        functions[choice] = type(linear_attention(**inputs, heads=4).grad_fn).__name__
    assert "gsd" not in functions["auto"]
    assert "gsd" in functions["cpp"]


def test_an_empty_batch_is_allowed(isa):
    inputs, _ = random_case((0, 16, 4, 4, 4, 32))
    inputs["x"].requires_grad_()
    y = linear_attention(**inputs, heads=4)
    (grad,) = torch.autograd.grad(y.sum(), inputs["x"])
    assert grad.shape == y.shape == inputs["x"].shape


def test_a_second_derivative_is_refused_clearly():
    inputs, _ = random_case((1, 16, 3, 3, 4, 32))
    x = inputs["x"].requires_grad_()
    y = torch.ops.gsd.linear_attention(*inputs.values(), 4, 1e-5)[0]
    (grad,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="linear_attention has no second derivative"):
        torch.autograd.grad(grad.square().sum(), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_operations_are_registered_properly(dtype):
    inputs, grad_y = random_case((2, 16, 4, 5, 2, 16), dtype)
    statistics = torch.ops.gsd.linear_attention(*inputs.values(), 2, 1e-5)[1:]
    torch.library.opcheck(
        torch.ops.gsd.linear_attention_backward.default, (grad_y, *inputs.values(), *statistics)
    )
    leaves = [value.requires_grad_() for value in inputs.values()]
    torch.library.opcheck(torch.ops.gsd.linear_attention.default, (*leaves, 2, 1e-5))


def test_compiles_in_one_graph(backend):
    inputs, _ = random_case((2, 16, 4, 5, 4, 32))

    def gradient(tensors, compiler=lambda call: call):
        x, others = tensors["x"].detach().requires_grad_(), {**tensors}
        del others["x"]
        call = compiler(lambda x: linear_attention(x * 2.0, **others, heads=4))
        (grad,) = torch.autograd.grad(call(x).square().sum(), x)
        return {"x": grad}

    compiler = partial(torch.compile, fullgraph=True, backend="aot_eager")
    assert_accurate(gradient(inputs, compiler), gradient, inputs, times=8)
