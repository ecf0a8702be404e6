"""The choice between implementations on a GPU, and what every one of them is asked to take."""

import importlib
from typing import Any

import pytest
import torch

from genselfdiff.kernels import OPERATIONS, backends

X = torch.zeros(1, 16, 2, 2)
C = torch.ones(16)
QKV, OUT = torch.ones(384, 16, 1, 1), torch.ones(16, 128, 1, 1)
CALLS: dict[str, list[Any]] = {
    "add_noise": [X, torch.zeros(1, dtype=torch.int64), torch.ones(3).double(), 1, 0],
    "group_norm_silu": [X, C, C, 4, torch.zeros(1, 16), X, 1e-5],
    "linear_attention": [X, C, C, QKV, OUT, C, C, C, 4, 1e-5],
    "multi_loss": [X, torch.zeros(1, 2, 2, dtype=torch.int64), C, False, 2.0, None],
    "p2_loss": [X, X, torch.zeros(1, dtype=torch.int64), torch.ones(3).double(), True],
}
TABLES = {"alpha_bars", "weights", "class_weights"}


def tensors_of(name: str) -> list[tuple[int, str]]:
    """Index and name of each tensor among the arguments, after the first."""
    schema = getattr(torch.ops.gsd, name).default._schema
    named = enumerate(argument.name for argument in schema.arguments)
    return [(i, n) for i, n in named if i and isinstance(CALLS[name][i], torch.Tensor)]


ELSEWHERE = [(name, i, argument) for name in CALLS for i, argument in tensors_of(name)]


@pytest.mark.parametrize(("name", "index", "argument"), ELSEWHERE)
def test_triton_names_the_argument_that_is_elsewhere(name: str, index: int, argument: str) -> None:
    operation = next(one for one in OPERATIONS if one.name == name)
    plain = importlib.import_module(f"genselfdiff.kernels.{name}.reference")
    on_gpu = backends._triton_twin(operation, getattr(plain, plain_name(name)))
    arguments = list(CALLS[name])
    arguments[index] = arguments[index].to("meta")
    with pytest.raises(RuntimeError, match=f"{name}: {argument} is on meta and not on cpu"):
        on_gpu(*arguments)


def plain_name(name: str) -> str:
    """Of the plain implementation, in reference.py."""
    return "forward" if name in ("group_norm_silu", "linear_attention") else name


@pytest.mark.parametrize("name", [name for name, _, argument in ELSEWHERE if argument in TABLES])
def test_tables_may_stay_on_the_cpu(name: str) -> None:
    operation = next(one for one in OPERATIONS if one.name == name)
    names = [a.name for a in getattr(torch.ops.gsd, name).default._schema.arguments]
    moved = {
        n: a.to("meta") if isinstance(a, torch.Tensor) and n not in TABLES else a
        for n, a in zip(names, CALLS[name], strict=True)
    }
    backends.check_devices(name, moved, operation.tables)
