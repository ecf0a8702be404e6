"""How a function of tensors is run: forward or backward, memory format, autocast, compiled.

A form takes the arguments by name, does all that shall not be timed, and returns what shall.
"""

from collections.abc import Callable, Mapping, Sequence

import torch

Tensors = Sequence[torch.Tensor]
Arguments = Mapping[str, torch.Tensor]
Form = Callable[[Arguments], Callable[[], Tensors]]
Make = Callable[..., Form]

FORMATS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}


def forward(
    function: Callable[..., torch.Tensor | Tensors],
    memory_format: torch.memory_format = torch.contiguous_format,
    autocast: bool = False,
) -> Form:
    """The result, or results, without a graph."""

    def prepare(arguments: Arguments) -> Callable[[], Tensors]:
        arranged = _arranged(arguments, memory_format, autocast)
        context = _autocast(arranged, autocast)

        def run() -> Tensors:
            with torch.no_grad(), context:
                found = function(**arranged)
            return (found,) if isinstance(found, torch.Tensor) else found

        return run

    return prepare


def backward(
    function: Callable[..., torch.Tensor],
    memory_format: torch.memory_format = torch.contiguous_format,
    autocast: bool = False,
) -> Form:
    """The gradients of all arguments but "upstream", which is the gradient of the result."""

    def prepare(arguments: Arguments) -> Callable[[], Tensors]:
        arranged = _arranged(arguments, memory_format, autocast)
        upstream = arranged.pop("upstream")
        leaves = [t.requires_grad_() for t in arranged.values()]
        # Compiled graphs otherwise give their buffers away at the first backward pass.
        context = _autocast(arranged, autocast)
        with context, torch._functorch.config.patch(donated_buffer=False):
            y = function(**arranged)
        return lambda: torch.autograd.grad(y, leaves, upstream, retain_graph=True)

    return prepare


def loss_gradient(
    loss: Callable[..., torch.Tensor],
    memory_format: torch.memory_format = torch.contiguous_format,
    autocast: bool = False,
) -> Form:
    """Forward and backward of a loss: its gradient in the first argument."""

    def prepare(arguments: Arguments) -> Callable[[], Tensors]:
        arranged = _arranged(arguments, memory_format, autocast)
        leaf = next(iter(arranged.values())).requires_grad_()
        context = _autocast(arranged, autocast)

        def run() -> Tensors:
            with context:
                value = loss(**arranged)
            return torch.autograd.grad(value, leaf)

        return run

    return prepare


def in_float64(form: Form, arguments: Arguments) -> Tensors:
    """What the form gives for the same numbers in float64."""
    return form(
        {name: t.double() if t.is_floating_point() else t for name, t in arguments.items()}
    )()


def error(found: Tensors, truth: Tensors) -> float:
    """Of the worst tensor: norm of the difference, relative to the norm of the truth."""
    errors = [
        (result.double() - exact.double()).norm() / exact.double().norm()
        for result, exact in zip(found, truth, strict=True)
    ]
    return torch.stack(errors).max().item()


def is_right(error: float, dtype: torch.dtype) -> bool:
    """Whether numbers with that `error` count as a result.

    Where rounding moves a pixel over its threshold, the gradient of the multi-loss jumps: ten such
    pixels among half a million make 7e-4.
    """
    return error <= (0.05 if dtype == torch.bfloat16 else 1e-3)


def eager_forms(
    make: Make, function: Callable[..., torch.Tensor], dtype: torch.dtype
) -> dict[str, Form]:
    """Every way in which eager torch might be fastest; bfloat16 pure and by autocast."""
    return {
        f"authors, {name}{', autocast' if autocast else ''}": make(
            function, memory_format, autocast
        )
        for name, memory_format in FORMATS.items()
        for autocast in ([False, True] if dtype == torch.bfloat16 else [False])
    }


def compiled(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """By inductor, for the shapes at hand."""
    return torch.compile(function, dynamic=False)


def _autocast(arguments: Arguments, enabled: bool) -> torch.autocast:
    device = next(iter(arguments.values())).device.type
    return torch.autocast(device, torch.bfloat16, enabled=enabled)


def _arranged(
    arguments: Arguments, memory_format: torch.memory_format, autocast: bool
) -> dict[str, torch.Tensor]:
    """Images in that format; under autocast parameters are float32."""
    arranged = {}
    for name, tensor in arguments.items():
        if autocast and name.endswith(("weight", "bias")):
            tensor = tensor.float()
        arranged[name] = (
            tensor.contiguous(memory_format=memory_format) if tensor.dim() == 4 else tensor
        ).detach()
    return arranged
