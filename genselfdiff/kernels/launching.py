"""Launching Triton kernels again and again at little cost to the host.

Triton looks at every argument of every launch for what the kernel was specialised for. Here that
is looked up by what can differ between two launches, and the compiled kernel is launched.
"""

from collections.abc import Callable
from typing import Any

import torch
from triton.runtime.jit import JITFunction

ALIGNMENT = 16
"""Bytes that divide an address, for Triton to load as much at once."""


class Kernel:
    """A Triton kernel: ``kernel[grid](*arguments, **options)`` launches it, as Triton's own does.

    An argument is a tensor at every launch, or a number at every launch.

    Args:
        function: what ``triton.jit`` has made.
    """

    remembers = True
    """Whether what was compiled is launched again; otherwise Triton is asked each time."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self._key: Callable[..., Any] | None = None
        self._compiled: dict[Any, Any] = {}

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return lambda *arguments, **options: self.launch(grid, arguments, options)

    def launch(self, grid: tuple[int, ...], arguments: tuple[Any, ...], options: Any) -> None:
        """Compile what is not compiled, and launch."""
        if self._key is None:
            self._key = _key_of(self.function, arguments)
        key = self._key(*arguments, *options.values())
        compiled = self._compiled.get(key)
        if compiled is not None and self.remembers:
            compiled[grid + (1,) * (3 - len(grid))](*arguments)
            return
        compiled = self.function[grid](*arguments, **options)
        if key is not None and self.remembers:
            self._compiled[key] = compiled


def launched(function: Any) -> Any:
    """Decorate a kernel of ``triton.jit`` that the host launches; Triton's interpreter's stays."""
    return Kernel(function) if isinstance(function, JITFunction) else function


def cdiv(count: int, size: int) -> int:
    """How many of that size hold so many. Triton's own takes half as long as a launch."""
    return -(-count // size)


def _key_of(function: Any, arguments: tuple[Any, ...]) -> Callable[..., Any]:
    """A function of the arguments to what a launch is compiled for; None: Triton has to look.

    It is written out for the kernel, as Triton writes out its own: most of a launch's cost is
    going through arguments one by one.
    """
    parts, addresses = [], []
    for parameter, argument in zip(function.params, arguments, strict=True):
        name = parameter.name
        if isinstance(argument, torch.Tensor):
            parts.append(f"{name}.dtype")
            addresses.append(f"{name}.data_ptr()")
            device = f"{name}.get_device()"
        elif parameter.is_constexpr:
            parts.append(name)
        elif isinstance(argument, int):  # floats have one type
            looked_at, typed = not parameter.do_not_specialize, parameter.annotation_type
            parts.append(name if looked_at else "0" if typed else f"{name} >> 31")  # 32 bits or 64
    names = ", ".join(parameter.name for parameter in function.params)
    source = (
        f"lambda {names}, *options: None if ({' | '.join(addresses)}) % {ALIGNMENT} else"
        f" ({device}, {', '.join(parts)}, options)"
    )
    written: Callable[..., Any] = eval(source)
    return written
