"""How kernels are launched: from C++ as from Triton, again, on other streams, in graphs."""

from typing import Any

import pytest
import torch
from cases import Case, Tensors, attention, loss, noise, norm, p2, smallest
from interpreting import triton_function
from torch.utils._python_dispatch import TorchDispatchMode

from genselfdiff.kernels import group_norm_silu
from genselfdiff.kernels.backends import launched_from_cpp

from .conftest import DEVICE, ON_GPU, on_a_gpu

DTYPES = (torch.float32, torch.bfloat16)
SLEEP = 20_000_000
"""Cycles: a hundredth of a second."""

CASES = [
    case
    for dtype in DTYPES
    for case in (
        *smallest(dtype),
        *((norm((2, 64, 33, 31), dtype), attention((2, 64, 33, 31), dtype)) if ON_GPU else ()),
        *((loss((2, 4, 65, 63), dtype), p2((2, 3, 65, 63), dtype)) if ON_GPU else ()),
        *((noise((2, 3, 65, 63), dtype),) if ON_GPU else ()),
    )
]
SOME = CASES if ON_GPU else [CASES[0], CASES[5], CASES[6]]


def named(case: Case) -> str:
    return f"{case.name} {str(case.dtype).removeprefix('torch.')}"


every_case = pytest.mark.parametrize("case", SOME, ids=named)


def assert_same_bits(found: Tensors, wanted: Tensors) -> None:
    for name, value in wanted.items():
        assert not value.isnan().any(), name
        assert torch.equal(found[name], value), name


class Calls(TorchDispatchMode):
    """Notes the operations of ours that are called, with what they gave."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[str, tuple[Any, ...], tuple[torch.Tensor, ...]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = func(*args, **(kwargs or {}))
        if func.namespace == "gsd":
            self.made.append((func._schema.name.removeprefix("gsd::"), args, given))
        return given


@every_case
def test_what_is_launched_is_what_triton_launches(kernels, device, case):
    with Calls() as calls:
        case.run(case.on(device))
    assert calls.made
    for name, arguments, given in calls.made:
        with torch.no_grad():
            wanted = triton_function(name)(*arguments)
        for one, other in zip(given, wanted, strict=True):
            assert one.stride() == other.stride(), name
            assert torch.equal(one, other), name


@on_a_gpu
def test_kernels_are_launched_from_cpp():
    assert {"group_norm_silu", "linear_attention"} <= launched_from_cpp.keys()


@every_case
def test_every_time_the_same_bits(kernels, device, case):
    assert_same_bits(case.run(case.on(device)), case.run(case.on(device)))


@on_a_gpu
@every_case
def test_the_stream_that_is_current_is_used(kernels, device, case):
    wanted = case.run(case.on(device))
    inputs = {name: torch.empty_like(value) for name, value in case.on(device).items()}
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(SLEEP)  # who does not wait for this stream sees no inputs
        for name, value in case.inputs.items():
            inputs[name].copy_(value.pin_memory(), non_blocking=True)
        found = case.run(inputs)
    side.synchronize()
    assert_same_bits(found, wanted)


@on_a_gpu
@every_case
def test_a_graph_of_it_can_be_captured_and_replayed(kernels, device, case):
    held, wanted = case.on(device), case.run(case.on(device))
    values = {name: value.clone() for name, value in held.items()}
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):  # compiles, and allocates what stays
            case.run(held)
    torch.cuda.current_stream().wait_stream(side)
    for name, value in held.items():
        if name not in ("t", "labels"):
            value.zero_()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = case.run(held)
    for name, value in values.items():
        held[name].copy_(value)
    graph.replay()
    torch.cuda.synchronize()
    assert_same_bits(found, wanted)


@on_a_gpu
def test_tensors_beyond_the_first_two_gibibytes_are_reached(kernels, device):
    """Offsets that 32 bits do not hold."""
    x = torch.randn(18, 128, 1024, 1024, dtype=torch.bfloat16, device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    weight, bias = torch.rand(2, 128, device=device)
    y = group_norm_silu(x, weight, bias, 8)
    assert torch.equal(y[-1:], group_norm_silu(x[-1:], weight, bias, 8))


def test_the_device_is_what_was_asked_for():
    assert DEVICE.type == "cpu" or torch.cuda.is_available()
