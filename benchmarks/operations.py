"""The operations at sizes of the network: how plain torch does them, how ours does, and the truth.

``CASES`` is what ``test_operations.py`` times.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from genselfdiff.kernels import add_noise, group_norm_silu, multi_loss, p2_loss
from genselfdiff.kernels.add_noise.reference import standard_normal
from genselfdiff.kernels.multi_loss.reference import ERROR_SHARE, STABILISER

Tensors = Sequence[torch.Tensor]
Form = Callable[..., Tensors]

TILES = (8, 3, 256, 256)
ALPHA_BARS = torch.linspace(0.9999, 0.0001, 1000, dtype=torch.float64)
STEPS = torch.arange(8) * 125


@dataclass(frozen=True)
class Case:
    """One operation at one size.

    Attributes:
        name: operation, direction and dtype.
        inputs: makes the inputs, the same ones each time.
        forms: by name, what computes the results from the inputs; "ours" among them.
        exact: the results in float64.
        floor_bytes: what has to be read and written at the least.
        tolerance: largest error of a form, relative to the largest result.
    """

    name: str
    inputs: Callable[[], Tensors]
    forms: dict[str, Form]
    exact: Form
    floor_bytes: int
    tolerance: float


def _broadcast(values: torch.Tensor) -> torch.Tensor:
    return values.float().reshape(-1, 1, 1, 1)


def _eager_noise(tiles: torch.Tensor) -> Tensors:
    noise = torch.randn(tiles.shape)
    power = ALPHA_BARS[STEPS]
    clean = tiles.float() / 127.5 - 1.0
    return (_broadcast(power.sqrt()) * clean + _broadcast((1 - power).sqrt()) * noise,)


def _our_noise(tiles: torch.Tensor) -> Tensors:
    return (add_noise(tiles, STEPS, ALPHA_BARS, seed=1)[0],)


def _exact_noise(tiles: torch.Tensor) -> Tensors:
    noise = standard_normal(tiles.shape, seed=1, offset=0, device=tiles.device)
    power = ALPHA_BARS[STEPS].reshape(-1, 1, 1, 1)
    return (power.sqrt() * (tiles.double() / 127.5 - 1.0) + (1 - power).sqrt() * noise,)


def _differentiated(loss: Callable[..., torch.Tensor]) -> Form:
    """Gradient of a loss in its first argument."""

    def run(x: torch.Tensor, *others: torch.Tensor) -> Tensors:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(loss(x, *others), x)

    return run


def _exactly(form: Form) -> Form:
    """The same in float64."""
    return lambda *inputs: form(*(t.double() if t.is_floating_point() else t for t in inputs))


def _eager_p2(pred: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    weights = (1 - ALPHA_BARS[STEPS]).to(pred.dtype)
    return ((pred - noise).square().mean(dim=(1, 2, 3)) * weights).mean()


def _our_p2(pred: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    return p2_loss(pred, noise, STEPS, 1 - ALPHA_BARS)


def _eager_multi_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The scalar form as one would write it from the formula, on probabilities."""
    p = logits.softmax(1)
    target = F.one_hot(labels, p.shape[1]).permute(0, 3, 1, 2).to(p)

    def standardised(plane: torch.Tensor) -> torch.Tensor:
        mean, std = plane.mean((2, 3), keepdim=True), plane.std((2, 3), keepdim=True)
        return (plane - mean + STABILISER) / (std + STABILISER)

    error = (standardised(target) - standardised(p)).abs()
    counted = (error > ERROR_SHARE * error.amax((2, 3), keepdim=True)).to(p)
    similarity = (error * counted).sum() / counted.sum() * F.nll_loss(p.log(), labels)
    p_true = p.gather(1, labels[:, None])
    return similarity + (-((1 - p_true) ** 2) * p_true.log()).mean()


def _eager_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return F.silu(F.group_norm(x, 8, weight, bias))


def _our_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return group_norm_silu(x, weight, bias, 8)


def _in_format(form: Form, memory_format: torch.memory_format) -> Form:
    """With the images converted once, so that the operation alone is timed."""
    converted: dict[int, Tensors] = {}

    def run(*inputs: torch.Tensor) -> Tensors:
        if id(inputs[0]) not in converted:
            converted.clear()
            converted[id(inputs[0])] = [
                t.detach().contiguous(memory_format=memory_format) if t.dim() == 4 else t
                for t in inputs
            ]
        return form(*converted[id(inputs[0])])

    return run


def _backward_of(function: Callable[..., torch.Tensor]) -> Form:
    """The backward pass alone: the forward pass is done at the first call."""
    graphs: dict[int, tuple[torch.Tensor, Tensors]] = {}

    def run(*inputs: torch.Tensor) -> Tensors:
        *arguments, upstream = inputs
        if id(inputs[0]) not in graphs:
            graphs.clear()
            leaves = [t.detach().requires_grad_() for t in arguments]
            graphs[id(inputs[0])] = function(*leaves), leaves
        y, leaves = graphs[id(inputs[0])]
        return torch.autograd.grad(y, leaves, upstream, retain_graph=True)

    return run


def _norm_cases(dtype: torch.dtype) -> list[Case]:
    def inputs() -> Tensors:
        generator = torch.Generator().manual_seed(0)
        x, upstream = torch.randn(2, 1, 64, 256, 256, generator=generator).to(dtype)
        weight, bias = torch.randn(2, 64, generator=generator).to(dtype)
        return x, weight, bias, upstream

    def forward(function: Callable[..., torch.Tensor]) -> Form:
        def run(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, _: object) -> Tensors:
            with torch.no_grad():
                return (function(x, weight, bias),)

        return run

    cases = []
    size = 64 * 256 * 256 * dtype.itemsize
    for direction, make, arrays in (("forward", forward, 2), ("backward", _backward_of, 3)):
        cases.append(
            Case(
                name=f"group_norm_silu {direction}, {str(dtype).removeprefix('torch.')}",
                inputs=inputs,
                forms={
                    "eager, contiguous": _in_format(make(_eager_norm), torch.contiguous_format),
                    "eager, channels_last": _in_format(make(_eager_norm), torch.channels_last),
                    "ours": _in_format(make(_our_norm), torch.channels_last),
                },
                exact=_exactly(make(_eager_norm)),
                floor_bytes=arrays * size,
                tolerance=1e-5 if dtype == torch.float32 else 1e-2,
            )
        )
    return cases


def _random(*sizes: int) -> Callable[[], Tensors]:
    return lambda: torch.randn(2, *sizes, generator=torch.Generator().manual_seed(0)).unbind()


def _labelled() -> Tensors:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(8, 4, 256, 256, generator=generator),
        torch.randint(0, 4, (8, 256, 256), generator=generator),
    )


CASES = [
    Case(
        name="add_noise, uint8",
        inputs=lambda: (torch.randint(0, 256, TILES, dtype=torch.uint8),),
        forms={"eager": _eager_noise, "ours": _our_noise},
        exact=_exact_noise,
        floor_bytes=8 * 3 * 256 * 256 * 9,
        tolerance=1e-6,
    ),
    Case(
        name="p2_loss forward and backward, float32",
        inputs=_random(*TILES),
        forms={"eager": _differentiated(_eager_p2), "ours": _differentiated(_our_p2)},
        exact=_exactly(_differentiated(_eager_p2)),
        floor_bytes=8 * 3 * 256 * 256 * 12,
        tolerance=1e-6,
    ),
    Case(
        name="multi_loss forward and backward, float32",
        inputs=_labelled,
        forms={"eager": _differentiated(_eager_multi_loss), "ours": _differentiated(multi_loss)},
        exact=_exactly(_differentiated(_eager_multi_loss)),
        floor_bytes=8 * 256 * 256 * (4 * 8 + 8),
        tolerance=1e-5,
    ),
    *_norm_cases(torch.float32),
    *_norm_cases(torch.bfloat16),
]
