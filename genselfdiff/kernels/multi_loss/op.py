"""The operation ``gsd::multi_loss`` and the functions that call it.

Source: GenSelfDiff-HIS (IEEE TMI 2024); the structural similarity loss is that of Zhao, Wu and Cai,
arXiv 1910.08711. The published equation ("pixel") and the authors' code ("scalar") differ in where
the cross entropy enters; both are here.
"""

from typing import Any

import torch
import torch.distributed as dist

from genselfdiff.choices import LOSS_FORMS
from genselfdiff.kernels.autograd import scale_gradient
from genselfdiff.kernels.backends import Operation
from genselfdiff.kernels.multi_loss import reference

OPERATION = Operation(
    "multi_loss",
    frozenset({torch.float32, torch.bfloat16}),
    tables=frozenset({"class_weights"}),
)
NATIVE_CLASSES = 256
"""The native kernel takes up to so many classes."""


def multi_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    form: str = "scalar",
    focal_gamma: float = 2.0,
    class_weights: torch.Tensor | None = None,
    ignore_label: int | None = None,
) -> torch.Tensor:
    """Structural similarity loss plus focal loss of ``logits`` against ``labels``.

    The softmax over C is inside, through log-softmax, so that a probability that underflows costs a
    large loss and not an infinite one. The native kernel makes the gradient beside the loss and
    gives the same bits for any number of threads.

    Args:
        logits: (N, C, H, W) floating point, any strides.
        labels: (N, H, W) integer class indices.
        form: "scalar" (authors' code: masked structural error times the mean cross entropy) or
            "pixel" (published equation: the cross entropy weights each pixel).
        focal_gamma: exponent of the focal loss, 0 or at least 1.
        class_weights: (C,), or None. Weight ``w_c`` multiplies the focal and cross-entropy terms of
            pixels of true class c and the structural terms of plane c (so the "pixel" form, a
            product of both, carries its square); denominators stay counts.
        ignore_label: pixels with this label leave every mean, deviation, maximum, sum and count.

    Returns:
        A scalar, float32 (float64 for float64), differentiable in ``logits``: once where the
        kernel is native. All pixels ignored gives zero with a zero gradient.

    Raises:
        ValueError: no such form.
        RuntimeError: shapes or dtypes do not fit, a label is neither a class nor ``ignore_label``,
            or an exponent between 0 and 1, whose gradient is infinite at p = 1.
        InputError: GSD_KERNELS or GSD_CPU_ISA asks for what cannot run.
    """
    many = logits.dim() == 4 and logits.shape[1] > NATIVE_CLASSES
    obstacle = f"the kernel of multi_loss takes up to {NATIVE_CLASSES} classes" if many else ""
    if OPERATION.backend(logits.device, logits.dtype, obstacle) == "reference":
        similarity, focal = multi_loss_components(
            logits, labels, form, focal_gamma, class_weights, ignore_label
        )
        return similarity + focal
    if not labels.is_floating_point():
        labels = labels.long()
    loss, _ = torch.ops.gsd.multi_loss(
        logits, labels, class_weights, _is_pixel(form), focal_gamma, ignore_label
    )
    return loss


def multi_loss_components(
    logits: torch.Tensor,
    labels: torch.Tensor,
    form: str = "scalar",
    focal_gamma: float = 2.0,
    class_weights: torch.Tensor | None = None,
    ignore_label: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both parts of :func:`multi_loss`, (structural similarity, focal), in plain torch.

    Each is differentiable by itself. Arguments and errors are those of ``multi_loss``.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return reference.components(
        logits.to(dtype), labels, class_weights, _is_pixel(form), focal_gamma, ignore_label
    )


def multi_loss_over_processes(
    logits: torch.Tensor,
    labels: torch.Tensor,
    form: str = "scalar",
    focal_gamma: float = 2.0,
    class_weights: torch.Tensor | None = None,
    ignore_label: int | None = None,
) -> torch.Tensor:
    """:func:`multi_loss` of the batches of all processes taken together, in plain torch.

    Every process gets the same loss. The gradient in its ``logits`` is that of the loss times the
    number of processes, so that the mean of the gradients over the processes, as
    DistributedDataParallel makes it, is the gradient of the loss.

    Arguments and errors are those of ``multi_loss``; torch.distributed must be initialised.
    """
    pixel_form = _is_pixel(form)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    own = reference.sums(
        logits.to(dtype), labels, class_weights, pixel_form, focal_gamma, ignore_label
    )
    total = _SumOverProcesses.apply(own)  # type: ignore[no-untyped-call]
    similarity, focal = reference.combined(total, pixel_form)
    return similarity + focal


class _SumOverProcesses(torch.autograd.Function):
    """Sum over the processes; each then computes the same of it."""

    @staticmethod
    def forward(ctx: Any, own: torch.Tensor) -> torch.Tensor:
        total = own.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad * dist.get_world_size()


def _is_pixel(form: str) -> bool:
    if form not in LOSS_FORMS:
        raise ValueError(f"multi_loss: form must be one of {', '.join(LOSS_FORMS)}, not {form}")
    return form == "pixel"


def _shapes(
    logits: torch.Tensor,
    labels: torch.Tensor,
    class_weights: torch.Tensor | None,
    pixel_form: bool,
    focal_gamma: float,
    ignore_label: int | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.new_empty((), dtype=dtype), logits.new_empty(logits.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    # logits are only for the error message of a second derivative; they are alive anyway.
    ctx.save_for_backward(output[1], inputs[0])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # no zeros for the second result


def _backward(
    ctx: Any, grad_loss: torch.Tensor, _: torch.Tensor
) -> tuple[torch.Tensor | None, ...]:
    grad_logits, logits = ctx.saved_tensors
    grad = scale_gradient("multi_loss", grad_loss, grad_logits, logits)
    return grad, None, None, None, None, None


OPERATION.register(
    "(Tensor logits, Tensor labels, Tensor? class_weights, bool pixel_form, float focal_gamma,"
    " int? ignore_label) -> (Tensor loss, Tensor grad_logits)",
    reference.multi_loss,
    _shapes,
)
OPERATION.register_autograd(_setup_context, _backward)
