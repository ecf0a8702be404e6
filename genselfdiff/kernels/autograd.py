"""How the operations are differentiated: once, backwards; under torch.func as well."""

from collections.abc import Callable
from typing import Any

import torch
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction


def differentiable(
    op: str, setup_context: Callable[..., None], backward: Callable[..., Any]
) -> Callable[..., Any]:
    """What runs for an operation ``gsd::op`` where autograd looks on.

    As torch.library.register_autograd would make it, which knows neither torch.func nor forward
    mode: it refuses the one, and gives zeros for the other.

    Args:
        op: the operation.
        setup_context, backward: as torch.library.register_autograd takes them.
    """
    call = getattr(torch.ops.gsd, op).default

    def run(*arguments: Any) -> Any:
        if torch._C._functorch.peek_interpreter_stack() is None:
            with torch._C._AutoDispatchBelowAutograd():
                return call(*arguments)
        # The transforms of torch.func that are further out look on as well; the modes are those
        # that autograd.Function has switched off.
        with (
            torch.enable_grad(),
            forward_ad._set_fwd_grad_enabled(True),
            torch._C._AutoDispatchBelowAutograd(),
        ):
            return call(*arguments)

    # The dispatcher has taken the transforms apart already: one level is left.
    function = type(
        f"gsd_{op}",
        (_SingleLevelFunction,),
        {
            "forward": staticmethod(run),
            "setup_context": staticmethod(setup_context),
            "backward": staticmethod(backward),
            "jvp": staticmethod(_no_forward_mode(op)),
        },
    )

    def kernel(*arguments: Any) -> Any:
        forward_mode = forward_ad._current_level >= 0
        backward_mode = torch.is_grad_enabled() and torch._C._any_requires_grad(*arguments)
        if not forward_mode and not backward_mode:
            with torch._C._AutoDispatchBelowAutograd():
                return call(*arguments)
        with enable_single_level_autograd_function():
            return function.apply(*arguments)  # type: ignore[attr-defined]

    return kernel


def _no_forward_mode(op: str) -> Callable[..., Any]:
    def refuse(*_: Any) -> Any:
        raise RuntimeError(f"{op} has no derivative in forward mode, only backwards")

    return refuse


def scale_gradient(
    op: str, grad_loss: torch.Tensor, grad: torch.Tensor, *sources: torch.Tensor
) -> torch.Tensor:
    """``grad_loss * grad``, for losses whose kernel makes the gradient in the forward pass.

    Args:
        op: the operation.
        grad_loss: scalar gradient of what follows.
        grad: gradient of the loss, as the kernel made it.
        sources: as for `differentiable_once`.
    """
    # Most often the loss is the last thing computed. Reading the factor would stop a GPU, and a
    # subclass (of a compiler's) has no value.
    known = grad_loss.device.type == "cpu" and type(grad_loss) is torch.Tensor
    known = known and not torch._C._functorch.is_functorch_wrapped_tensor(grad_loss)
    scaled = grad if known and grad_loss.item() == 1 else grad_loss * grad
    return differentiable_once(op, scaled, *sources)


def differentiable_once(op: str, grad: torch.Tensor, *sources: torch.Tensor) -> torch.Tensor:
    """``grad``; being differentiated in turn is an error that names ``op``.

    Args:
        op: the operation.
        grad: its gradient in one of its inputs.
        sources: the inputs that a second derivative would be taken in.
    """
    if not torch.is_grad_enabled() and forward_ad._current_level < 0:
        return grad  # nobody asked for a derivative of the gradient
    result: torch.Tensor = _DifferentiableOnce.apply(op, grad, *sources)  # type: ignore[no-untyped-call]
    return result


def _no_second_derivative(op: str) -> RuntimeError:
    return RuntimeError(
        f"{op} has no second derivative: use float64 or GSD_KERNELS=reference where one is needed"
    )


class _DifferentiableOnce(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(op: str, grad: torch.Tensor, *sources: torch.Tensor) -> torch.Tensor:
        """Give ``grad``, made to depend on ``sources`` in the eyes of autograd."""
        return grad.view_as(grad)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        ctx.op = inputs[0]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Refuse."""
        raise _no_second_derivative(ctx.op)

    @staticmethod
    def jvp(ctx: Any, *tangents: torch.Tensor | None) -> torch.Tensor:
        """Refuse."""
        raise _no_second_derivative(ctx.op)
