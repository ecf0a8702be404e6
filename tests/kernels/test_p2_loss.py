"""The P2 loss: figures of the published code, gradients, the same bits for any thread count."""

from collections.abc import Callable

import baselines
import numpy as np
import pytest
import torch

from genselfdiff.kernels import p2_loss

WEIGHTS = torch.linspace(0.01, 1.0, 1000, dtype=torch.float64)
SHAPES = [(1, 1), (2, 3, 16, 16), (3, 5, 7), (2, 8193), (2, 3, 75, 91)]


def images(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    pred, noise = torch.randn((2, *shape), generator=generator).to(dtype)
    return pred, noise


def steps(batch: int) -> torch.Tensor:
    return torch.arange(batch) * 333 % 1000


def expected(
    pred: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, reduction: str
) -> tuple[float, torch.Tensor]:
    """Loss and gradient by the definition, in float64."""
    pred = pred.detach().double().requires_grad_()
    error = (pred - noise.double()).square().flatten(1).mean(1) * WEIGHTS[t]
    loss = error.mean() if reduction == "mean" else error.sum()
    (grad,) = torch.autograd.grad(loss, pred)
    return loss.item(), grad


def quadratic_p2_weights() -> torch.Tensor:
    """1 - alpha_bar of betas that are squares of 1000 even steps, 1e-4 to 0.02."""
    betas = torch.linspace(1e-4**0.5, 0.02**0.5, 1000, dtype=torch.float64).square()
    return 1.0 - torch.cumprod(1.0 - betas, 0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_reproduces_the_published_code(golden: dict[str, np.ndarray], dtype: torch.dtype) -> None:
    pred = torch.from_numpy(golden["p2_pred"]).to(dtype).requires_grad_()
    noise, t = torch.from_numpy(golden["p2_eps"]).to(dtype), torch.from_numpy(golden["p2_t"])
    loss = p2_loss(pred, noise, t, quadratic_p2_weights(), reduction="batch_sum")
    loss.backward()
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(float(golden["p2_loss"]), rel=tolerance)
    wanted = torch.from_numpy(golden["p2_grad"]).to(dtype)
    torch.testing.assert_close(
        pred.grad, wanted, rtol=tolerance, atol=tolerance * float(wanted.abs().max())
    )


def test_baseline_of_the_benchmarks_is_the_mean_form() -> None:
    pred, noise = images((3, 5, 7), torch.float64)
    expected_loss, _ = expected(pred, noise, steps(3), "mean")
    loss = baselines.p2_loss(pred, noise, steps(3), WEIGHTS).item()
    assert loss == pytest.approx(expected_loss, rel=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reduction", ["mean", "batch_sum"])
def test_agrees_with_float64(
    backend: str, shape: tuple[int, ...], dtype: torch.dtype, reduction: str
) -> None:
    pred, noise = images(shape, dtype)
    pred.requires_grad_()
    noise.requires_grad_()
    t = steps(shape[0])
    loss = p2_loss(pred, noise, t, WEIGHTS, reduction=reduction)
    (3.0 * loss).backward()
    wanted_loss, wanted_grad = expected(pred, noise, t, reduction)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(wanted_loss, rel=1e-6)
    rounding = 2**-7 if dtype == torch.bfloat16 else 1e-6
    if backend == "triton" and dtype == torch.bfloat16:
        rounding *= 2  # Triton's interpreter cuts bits off instead of rounding
    largest = float(wanted_grad.abs().max())
    for name, grad, sign in (("pred", pred.grad, 3.0), ("noise", noise.grad, -3.0)):
        assert grad is not None
        assert grad.dtype == dtype
        torch.testing.assert_close(
            grad.double(),
            sign * wanted_grad,
            rtol=rounding,
            atol=3e-7 * largest,
            msg=lambda text, name=name: f"gradient of {name}: {text}",
        )


def test_every_instruction_set_gives_the_same_bits(
    isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pred, noise = images((3, 3, 57, 61), torch.float32)
    mine = torch.ops.gsd.p2_loss(pred, noise, steps(3), WEIGHTS, True)
    monkeypatch.setenv("GSD_CPU_ISA", "generic")
    generic = torch.ops.gsd.p2_loss(pred, noise, steps(3), WEIGHTS, True)
    assert torch.equal(mine[0], generic[0])
    assert torch.equal(mine[1], generic[1])


def test_thread_count_does_not_change_a_bit(isa: str) -> None:
    pred, noise = images((4, 3, 128, 130), torch.float32)
    before = torch.get_num_threads()
    losses = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            losses.append(p2_loss(pred, noise, steps(4), WEIGHTS).item())
    finally:
        torch.set_num_threads(before)
    assert losses == losses[:1] * 3


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x.repeat_interleave(2, dim=3)[..., ::2],
    ],
    ids=["channels_last", "strided"],
)
def test_strides_do_not_matter(backend: str, view: Callable[[torch.Tensor], torch.Tensor]) -> None:
    pred, noise = images((2, 3, 10, 14), torch.float32)
    strided = view(pred).requires_grad_()
    loss = p2_loss(strided, noise, steps(2), WEIGHTS)
    (grad,) = torch.autograd.grad(loss, strided)
    wanted_loss, wanted_grad = expected(pred, noise, steps(2), "mean")
    assert loss.item() == pytest.approx(wanted_loss, rel=1e-6)
    torch.testing.assert_close(grad, wanted_grad.float(), rtol=1e-5, atol=1e-8)


def test_gradcheck_in_float64() -> None:
    pred, noise = images((2, 3, 4), torch.float64)
    assert torch.autograd.gradcheck(
        lambda p, n: p2_loss(p, n, steps(2), WEIGHTS),
        (pred.requires_grad_(), noise.requires_grad_()),
    )


@pytest.mark.parametrize("through", ["pred", "noise"])
def test_a_second_derivative_is_refused_clearly(through: str) -> None:
    pred, noise = images((2, 3, 4), torch.float32)
    source = {"pred": pred, "noise": noise}[through].requires_grad_()
    loss, _ = torch.ops.gsd.p2_loss(pred, noise, steps(2), WEIGHTS, True)
    (grad,) = torch.autograd.grad(loss, source, create_graph=True)
    with pytest.raises(RuntimeError, match="p2_loss has no second derivative"):
        torch.autograd.grad(grad.square().sum(), source)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"t": torch.tensor([0, 1000])}, r"t\[1\] is 1000, outside the table of 1000"),
        ({"t": torch.tensor([0, 1, 2])}, r"t must be int64 of shape \(2,\)"),
        ({"noise": torch.zeros(2, 4)}, "same shape and dtype"),
        ({"noise": torch.zeros(2, 3).bfloat16()}, "same shape and dtype"),
        ({"weights": torch.ones(2, 2).double()}, "weights must have one dimension"),
        ({"pred": torch.zeros(0, 3), "noise": torch.zeros(0, 3)}, "must not be empty"),
    ],
)
def test_bad_arguments_are_named(
    backend: str, arguments: dict[str, torch.Tensor], message: str
) -> None:
    good = {"pred": torch.zeros(2, 3), "noise": torch.zeros(2, 3), "t": steps(2)}
    with pytest.raises(RuntimeError, match=message):
        p2_loss(**{**good, "weights": WEIGHTS, **arguments})


def test_an_unknown_reduction_is_refused() -> None:
    pred, noise = images((2, 3), torch.float32)
    with pytest.raises(ValueError, match="mean or batch_sum, not sum"):
        p2_loss(pred, noise, steps(2), WEIGHTS, reduction="sum")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_operation_is_registered_properly(dtype: torch.dtype) -> None:
    pred, noise = images((2, 3, 4, 5), dtype)
    torch.library.opcheck(
        torch.ops.gsd.p2_loss.default,
        (pred.requires_grad_(), noise, steps(2), WEIGHTS, True),
    )


def test_compiles_in_one_graph(backend: str) -> None:
    pred, noise = images((2, 3, 4, 5), torch.float32)
    pred.requires_grad_()

    def loss(p: torch.Tensor) -> torch.Tensor:
        return p2_loss(p * 2.0, noise, steps(2), WEIGHTS)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    (one,) = torch.autograd.grad(compiled(pred), pred)
    (other,) = torch.autograd.grad(loss(pred), pred)
    torch.testing.assert_close(one, other)
