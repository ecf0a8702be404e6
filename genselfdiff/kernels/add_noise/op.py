"""The operation ``gsd::add_noise`` and the function that calls it."""

from typing import Any

import torch

from genselfdiff.kernels.add_noise import reference
from genselfdiff.kernels.backends import Operation
from genselfdiff.kernels.checks import look_up

OPERATION = Operation(
    "add_noise",
    frozenset({torch.uint8, torch.float32, torch.bfloat16}),
    tables=frozenset({"alpha_bars"}),
)


def add_noise(
    x0: torch.Tensor,
    t: torch.Tensor,
    alpha_bars: torch.Tensor,
    *,
    seed: int,
    offset: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Diffuse clean images: ``x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise``.

    The noise of a sample is a pure function of ``seed`` and its global index ``offset + b``: the
    same in any batch, on any rank, with any number of threads, on every CPU. Elements are counted
    in (C, H, W) order whatever the strides. Source: Ho et al., "Denoising diffusion probabilistic
    models" (2020), equation 4; the generator is Philox4x32-10.

    Args:
        x0: (N, ...) clean images: uint8 grey levels, scaled to -1..1 inside, or floating point as
            the network takes them. Any strides.
        t: int64 (N,) time steps.
        alpha_bars: float64 (T,) cumulative products of 1 - beta.
        seed: signed 64-bit.
        offset: global index of the first sample, for instance the number of samples drawn so far.

    Returns:
        ``x_t`` and ``noise``, both contiguous and shaped like ``x0``, in its dtype (float32 for
        uint8). Differentiable in ``x0``.

    Raises:
        RuntimeError: shapes or dtypes do not fit, or a time step lies outside the table.
        InputError: GSD_KERNELS or GSD_CPU_ISA asks for what cannot run.
    """
    if OPERATION.backend(x0.device, x0.dtype) == "reference":
        return reference.add_noise(x0, t, alpha_bars, seed, offset)
    x_t, noise = torch.ops.gsd.add_noise(x0, t, alpha_bars, seed, offset)
    return x_t, noise


def _shapes(
    x0: torch.Tensor, t: torch.Tensor, alpha_bars: torch.Tensor, seed: int, offset: int
) -> tuple[torch.Tensor, torch.Tensor]:
    dtype = reference.result_dtype(x0)
    return x0.new_empty(x0.shape, dtype=dtype), x0.new_empty(x0.shape, dtype=dtype)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    _, t, alpha_bars, _, _ = inputs
    ctx.save_for_backward(t, alpha_bars)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # no zeros for the second result


def _backward(ctx: Any, grad_x_t: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    t, alpha_bars = ctx.saved_tensors
    return grad_x_t * look_up(alpha_bars.sqrt(), t, grad_x_t), None, None, None, None


OPERATION.register(
    "(Tensor x0, Tensor t, Tensor alpha_bars, int seed, int offset) -> (Tensor x_t, Tensor noise)",
    reference.add_noise,
    _shapes,
)
OPERATION.register_autograd(_setup_context, _backward)
