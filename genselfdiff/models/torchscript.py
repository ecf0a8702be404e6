"""Compiling to TorchScript, whatever else the process has done before."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

_REGISTERING = (
    *(torch.jit._script, torch.jit._async, torch.jit._await),
    *(torch._jit_internal, torch.overrides),
)
"""Modules of torch whose own functions are in its table of builtin functions."""


def script(module: nn.Module) -> torch.jit.ScriptModule:
    """``torch.jit.script`` that takes no value of ``module`` for a function of torch.

    torch knows its builtin functions by ``id()`` alone. Where an operator gets another overload,
    by ``torch.library`` or ``torch.compile``, its old function dies and stays in the table, and
    whatever is born at its address, such as a list that a module holds, passes for the function:
    "builtin cannot be used as a value". So only functions that live are in the table here.
    """
    table: dict[int, str]
    table = torch.jit._builtins._get_builtin_table()  # type: ignore[no-untyped-call]
    dead = {key: table.pop(key) for key in table.keys() - _living_builtins()}
    try:
        with without_deprecations():
            compiled: torch.jit.ScriptModule = torch.jit.script(module)
        return compiled
    finally:
        table.update(dead | table)  # what is not known here may be somebody else's


@contextmanager
def without_deprecations() -> Iterator[None]:
    """Without torch's warnings that TorchScript is no longer developed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@contextmanager
def steady_inference() -> Iterator[None]:
    """Without gradients, and a compiled module computes alike in all of its calls.

    Left to itself, TorchScript watches the first call and fuses what it saw for those after it. On
    a GPU that rounds differently, and which tile is the first depends on where a run was resumed.
    The switch is of the thread that calls.
    """
    unfused = torch.jit.optimized_execution(False)  # type: ignore[attr-defined]
    with torch.inference_mode(), unfused:
        yield


def _living_builtins() -> set[int]:
    """``id()`` of the functions that torch holds itself, and of its operators as they are now."""
    functions = [function for function, _ in torch.jit._builtins._builtin_ops]
    functions += [value for module in _REGISTERING for value in vars(module).values()]
    for namespace in list(vars(torch.ops).values()):
        if isinstance(namespace, torch._ops._OpNamespace):
            packets = list(vars(namespace).values())
            functions += [packet._op for packet in packets if hasattr(packet, "_op")]
    return set(map(id, functions))
