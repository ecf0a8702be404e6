"""The operation ``gsd::linear_attention``, its backward, and the function that calls it."""

from typing import Any

import torch

from genselfdiff.kernels import native
from genselfdiff.kernels.autograd import differentiable_once
from genselfdiff.kernels.backends import Operation, constant_when_compiled, let_triton_serve
from genselfdiff.kernels.checks import check_normed
from genselfdiff.kernels.linear_attention import reference

OPERATION = Operation("linear_attention", frozenset({torch.float32, torch.bfloat16}))
_BACKWARD = Operation("linear_attention_backward", OPERATION.dtypes)
GPU_LIMIT = "the GPU kernel takes heads of 16, 32, 64 or 128 features, 128 in all"


COMPILED_HEADS, COMPILED_FEATURES = 4, 32
"""Of the published network: for these, csrc/cuda/compile_kernels.py compiles the GPU kernels."""


def _compiled(heads: int, hidden: int) -> bool:
    return (heads, hidden) == (COMPILED_HEADS, COMPILED_HEADS * COMPILED_FEATURES)


def _is_compiled(*arguments: Any) -> bool:
    """Whether the compiled kernels take these arguments of the operation."""
    return _compiled(heads=arguments[8], hidden=arguments[4].shape[1])


def gpu_takes(heads: int, hidden: int) -> bool:
    """Whether a program of the GPU's has room for so many heads with so many features in all."""
    d = hidden // heads
    return d in (16, 32, 64, 128) and heads * d <= 128


def _obstacle(device: str, heads: int, hidden: int) -> str:
    """What keeps the kernel of that device from taking so many heads and features."""
    if device != "cuda":
        multiple = hidden % (16 * heads) == 0
        wanted = "the C++ kernel of linear_attention takes heads of a multiple of 16 features"
        return "" if multiple else wanted
    if not gpu_takes(heads, hidden):
        return GPU_LIMIT
    if _compiled(heads, hidden) or let_triton_serve("linear_attention"):
        return ""
    return "on a GPU, other than 4 heads of 32 features need triton (pip install torch triton)"


def _plain_is_faster(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """In training, where computing q, k and v again costs more than the kernel saves.

    Products of many channels are what most of the time goes to there, unless AMX makes them.
    """
    trained = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    wide = x.device.type == "cpu" and x.shape[1] >= 256
    return trained and wide and not _has_tiles()


@constant_when_compiled
def _has_tiles() -> bool:
    return native.selected_isa() == "amx"


def linear_attention(
    x: torch.Tensor,
    norm_weight: torch.Tensor,
    norm_bias: torch.Tensor,
    qkv_weight: torch.Tensor,
    out_weight: torch.Tensor,
    out_bias: torch.Tensor,
    out_norm_weight: torch.Tensor,
    out_norm_bias: torch.Tensor,
    heads: int,
    eps: float = 1e-5,
) -> torch.Tensor:
    """``x + GroupNorm(1)(conv(attention(qkv(GroupNorm(1)(x)))))``.

    The attention takes the softmax of q over its features and that of k over the tokens, which
    makes it linear in the number of tokens (Shen et al., "Efficient Attention", WACV 2021). The
    native kernel keeps nothing as large as ``x`` for the backward pass, which computes q, k and v
    again, and gives the same bits for any number of threads. It works on channels_last memory. On a
    CPU without AMX, training with 256 channels or more takes plain torch, which is faster there.

    Args:
        x: (N, C, H, W), any floating dtype and memory format.
        norm_weight, norm_bias: (C,) of the GroupNorm(1) before the attention.
        qkv_weight: (3 * heads * d, C, 1, 1) convolution without bias; q, k and v in this order,
            each head by head.
        out_weight, out_bias: (C, heads * d, 1, 1) and (C,).
        out_norm_weight, out_norm_bias: (C,) of the GroupNorm(1) after the output convolution.
        heads: number of heads.
        eps: added to both variances.

    Returns:
        A tensor shaped like ``x``, of its dtype whatever the parameters have; channels_last where
        the kernel is native.

    Raises:
        RuntimeError: shapes do not fit.
        ValueError: ``x`` has one element.
        InputError: GSD_KERNELS or GSD_CPU_ISA asks for what cannot run.
    """
    norm = (norm_weight, norm_bias)
    out = (out_weight, out_bias, out_norm_weight, out_norm_bias)
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return reference.linear_attention(x, *norm, qkv_weight, *out, heads, eps)
    check_normed("linear_attention", x, 1)
    obstacle = _obstacle(x.device.type, heads, out_weight.shape[1])
    detour = _plain_is_faster(x, qkv_weight)
    if OPERATION.backend(x.device, x.dtype, obstacle, detour=detour) == "reference":
        return reference.linear_attention(x, *norm, qkv_weight, *out, heads, eps)
    y, *_ = torch.ops.gsd.linear_attention(x, *norm, qkv_weight, *out, heads, eps)
    return y


def _shapes(
    x: torch.Tensor,
    norm_weight: torch.Tensor,
    norm_bias: torch.Tensor,
    qkv_weight: torch.Tensor,
    out_weight: torch.Tensor,
    out_bias: torch.Tensor,
    out_norm_weight: torch.Tensor,
    out_norm_bias: torch.Tensor,
    heads: int,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    dtype = torch.promote_types(x.dtype, torch.float32)
    hidden = out_weight.shape[1]
    d = hidden // heads
    return (
        torch.empty_like(x, memory_format=torch.channels_last),
        x.new_empty((x.shape[0], 4), dtype=dtype),
        x.new_empty((x.shape[0], hidden), dtype=dtype),
        x.new_empty((x.shape[0], heads, d, d), dtype=dtype),
    )


def _backward_shapes(
    grad_y: torch.Tensor,
    x: torch.Tensor,
    *others: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    *parameters, moments, _, _ = others
    return (
        torch.empty_like(x, memory_format=torch.channels_last),
        *(moments.new_empty(p.shape) for p in parameters),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    *sources, _, _ = inputs
    statistics = output[1:]
    ctx.save_for_backward(*sources, *statistics)
    ctx.mark_non_differentiable(*statistics)
    ctx.set_materialize_grads(False)  # no zeros for the statistics


def _backward(ctx: Any, grad_y: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:
    saved = ctx.saved_tensors
    sources = saved[:8]
    grads = torch.ops.gsd.linear_attention_backward(grad_y, *saved)
    return (
        *(
            differentiable_once("linear_attention", grad, grad_y, *sources).to(source.dtype)
            for grad, source in zip(grads, sources, strict=True)
        ),
        None,
        None,
    )


OPERATION.register(
    "(Tensor x, Tensor norm_weight, Tensor norm_bias, Tensor qkv_weight, Tensor out_weight,"
    " Tensor out_bias, Tensor out_norm_weight, Tensor out_norm_bias, int heads, float eps)"
    " -> (Tensor y, Tensor moments, Tensor k_lse, Tensor context)",
    reference.forward,
    _shapes,
    _is_compiled,
)
_BACKWARD.register(
    "(Tensor grad_y, Tensor x, Tensor norm_weight, Tensor norm_bias, Tensor qkv_weight,"
    " Tensor out_weight, Tensor out_bias, Tensor out_norm_weight, Tensor out_norm_bias,"
    " Tensor moments, Tensor k_lse, Tensor context)"
    " -> (Tensor grad_x, Tensor grad_norm_weight, Tensor grad_norm_bias, Tensor grad_qkv_weight,"
    " Tensor grad_out_weight, Tensor grad_out_bias, Tensor grad_out_norm_weight,"
    " Tensor grad_out_norm_bias)",
    reference.backward,
    _backward_shapes,
)
OPERATION.register_autograd(_setup_context, _backward)
