"""How far a kernel may be from float64: a bound that is the same on every machine.

Other float32 code is no measure: how it rounds depends on the processor. What rounding costs is
asked of float64 instead. Every number that goes in is moved by half a unit in the last place, up or
down at random: as far as the results move then, that far the best algorithm may be off as well.
"""

from collections.abc import Callable, Mapping

import pytest
import torch

Tensors = Mapping[str, torch.Tensor]
DRAWS = 3


def assert_accurate(
    ours: Tensors,
    run: Callable[[Tensors], Tensors],
    inputs: Tensors,
    times: float,
    least: float = 0.0,
) -> None:
    """Compare a kernel's results with plain torch in float64.

    Args:
        ours: results by name.
        run: plain torch, from inputs by name to the same results.
        inputs: what ``ours`` were made of; the coarsest dtype is the one that is computed in.
        times: so often an error may be what rounding the inputs costs; two units in the last place
            of the largest value come on top.
        least: inputs smaller than this are moved as if they were as large: for a function that
            rounds what it makes of small ones.
    """
    unit = max(torch.finfo(value.dtype).eps for value in inputs.values()) / 2
    generator = torch.Generator().manual_seed(9)

    def rounded(value: torch.Tensor) -> torch.Tensor:
        signs = 2.0 * torch.randint(0, 2, value.shape, generator=generator) - 1.0
        return value.double() + unit * signs * value.double().abs().clamp(min=least)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GSD_KERNELS", "reference")
        exact = run({name: value.double() for name, value in inputs.items()})
        moved = [
            run({name: rounded(value) for name, value in inputs.items()}) for _ in range(DRAWS)
        ]
    for name, truth in exact.items():
        assert truth.dtype == torch.float64
        allowed = times * max((other[name] - truth).abs().max() for other in moved)
        allowed += 2.0 * torch.finfo(ours[name].dtype).eps * truth.abs().max()
        error = (ours[name].double() - truth).abs().max()
        assert error <= allowed, f"{name}: off by {error:.3g}, allowed are {allowed:.3g}"
