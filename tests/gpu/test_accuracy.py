"""Every operation on the device, forward and backward, against float64."""

from collections.abc import Iterator

import pytest
import torch
from cases import Case, attention, error, loss, noise, norm, p2, smallest

from .conftest import ON_GPU

DTYPES = (torch.float32, torch.bfloat16)
COARSE = 3e-2
"""Limit of the error in bfloat16."""
AS_PLAIN = 3.0
"""So many times the error of plain torch in the same dtype is allowed as well."""


def large(dtype: torch.dtype) -> Iterator[Case]:
    """What only a GPU has the time for."""
    for shape in ((2, 16, 7, 5), (1, 64, 33, 17), (2, 512, 16, 15), (2, 256, 32, 31)):
        yield norm(shape, dtype)
    yield norm((3, 48, 1, 1), dtype)
    yield norm((1, 20, 65, 63), dtype, groups=4)
    yield norm((2, 64, 31, 33), dtype, groups=1, centre=100.0)
    yield norm((1, 128, 255, 257), dtype)
    for shape in ((2, 16, 9, 10), (1, 64, 33, 17), (2, 128, 31, 33), (1, 256, 32, 31)):
        yield attention(shape, dtype)
    for shape in ((1, 512, 17, 16), (2, 48, 1, 1), (1, 76, 65, 63), (1, 64, 255, 257)):
        yield attention(shape, dtype)
    yield attention((2, 32, 31, 33), dtype, centre=100.0)
    for form in ("scalar", "pixel"):
        for ignored in (False, True):
            yield loss((3, 5, 33, 31), dtype, form, ignored)
        yield loss((2, 2, 255, 257), dtype, form)
    yield loss((1, 300, 9, 8), dtype)
    for shape in ((1, 1), (2, 3, 19, 31), (1, 1025), (5, 3, 255, 257)):
        yield noise(shape, dtype)
    for reduction in ("mean", "batch_sum"):
        yield p2((3, 3, 33, 31), dtype, reduction)
        yield p2((5, 3, 255, 257), dtype, reduction)


CASES = [
    case
    for dtype in DTYPES
    for case in (*smallest(dtype), *(large(dtype) if ON_GPU else ()))
    if case.dtype == dtype or dtype == torch.float32  # grey levels once
    if ON_GPU or dtype == torch.float32 or "attention" in case.name
]


def named(case: Case) -> str:
    return f"{case.name} {str(case.dtype).removeprefix('torch.')}"


@pytest.mark.parametrize("case", CASES, ids=named)
def test_results_and_gradients_are_those_of_float64(case, device, monkeypatch, request):
    with monkeypatch.context() as patch:
        patch.setenv("GSD_KERNELS", "reference")
        exact = case.run(case.exact())
        plain = case.run(case.on(device))
    request.getfixturevalue("kernels")
    found = case.run(case.on(device))
    off, of_plain = {}, {}
    for name, truth in exact.items():
        assert found[name].device.type == device.type
        off[name], of_plain[name] = error(found[name], truth), error(plain[name], truth)
    worst = max(off, key=lambda name: off[name] if off[name] == off[name] else float("inf"))
    request.node.user_properties += [
        ("worst", worst), ("error", off[worst]), ("error of plain torch", of_plain[worst])
    ]  # fmt: skip
    limit = COARSE if case.dtype == torch.bfloat16 else case.limit
    wrong = {
        name: (off[name], of_plain[name])
        for name in exact
        if not off[name] <= max(limit, AS_PLAIN * of_plain[name])
    }
    assert not wrong, f"errors, ours and plain torch's: {wrong}"
