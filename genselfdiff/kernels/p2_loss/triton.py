"""The time-weighted squared error on the GPU: gradient and sums in one pass, as Triton kernels."""

import torch
import triton
import triton.language as tl

from genselfdiff.kernels.checks import check_dtype, check_times
from genselfdiff.kernels.launching import cdiv, launched
from genselfdiff.kernels.p2_loss import reference

_RUN = 4096  # elements of a program; fixed, so that the sums do not depend on the device
_BLOCK = 1024


def p2_loss(
    pred: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, weights: torch.Tensor, mean: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Triton's ``gsd::p2_loss``: the loss and its gradient in ``pred``.

    The device does not stop to look at ``t``: a step outside the table makes the loss NaN.
    """
    reference.check(pred, noise)
    check_dtype("p2_loss", "pred", pred, (torch.float32, torch.bfloat16))
    check_times("p2_loss", t, pred.shape[0], weights, "weights")
    table = weights.to(device=pred.device, dtype=torch.float64).contiguous()
    t = t.contiguous()
    grad = pred.new_empty(pred.shape)
    batch = pred.shape[0]
    size = pred.numel() // batch
    divisor = size * (batch if mean else 1)
    runs = cdiv(size, _RUN)
    sums = pred.new_empty((batch, runs), dtype=torch.float32)
    loss = pred.new_empty((), dtype=torch.float32)
    squares_kernel[(runs, batch)](
        pred.contiguous(), noise.contiguous(), t, table, grad, sums, divisor, size, len(table),
        _RUN, _BLOCK,
    )  # fmt: skip
    loss_kernel[(1,)](t, table, sums, loss, divisor, batch * runs, runs, len(table), _BLOCK)
    return loss, grad


@triton.jit
def _weight(weights, steps, step, mask):
    known = mask & (step >= 0) & (step < steps)
    return tl.where(mask, tl.load(weights + step, mask=known, other=float("nan")), 0.0)


@launched
@triton.jit(do_not_specialize=["divisor", "steps"])
def squares_kernel(
    pred,  # (N, size)
    noise,  # (N, size)
    t,  # (N) int64
    weights,  # (steps) float64
    grad,  # (N, size)
    sums,  # (N, runs) float32: of the squared differences
    divisor: tl.int64,
    size: tl.int64,
    steps: tl.int64,
    RUN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    weight = _weight(weights, steps, tl.load(t + image), True)
    scale = (2.0 * weight / divisor).to(tl.float32)
    squares = tl.zeros([BLOCK], tl.float32)
    for start in tl.static_range(0, RUN, BLOCK):
        element = tl.program_id(0).to(tl.int64) * RUN + start + tl.arange(0, BLOCK)
        inside = element < size
        at = image * size + element
        wanted = tl.load(noise + at, mask=inside, other=0.0).to(tl.float32)
        difference = tl.load(pred + at, mask=inside, other=0.0).to(tl.float32) - wanted
        squares += difference * difference
        tl.store(grad + at, (scale * difference).to(grad.dtype.element_ty), mask=inside)
    tl.store(sums + image * tl.num_programs(0) + tl.program_id(0), tl.sum(squares))


@launched
@triton.jit(do_not_specialize=["divisor", "count", "runs", "steps"])
def loss_kernel(
    t,  # (N) int64
    weights,  # (steps) float64
    sums,  # (N, runs) float32
    loss,  # scalar float32
    divisor: tl.int64,
    count,  # N * runs
    runs,
    steps: tl.int64,
    BLOCK: tl.constexpr,
):
    total = tl.zeros([BLOCK], tl.float64)
    for start in range(0, count, BLOCK):
        i = start + tl.arange(0, BLOCK)
        inside = i < count
        weight = _weight(weights, steps, tl.load(t + i // runs, mask=inside, other=0), inside)
        total += weight * tl.load(sums + i, mask=inside, other=0.0).to(tl.float64)
    tl.store(loss, (tl.sum(total) / divisor).to(tl.float32))
