"""Every operation of the package on random numbers: inputs, and a function to results by name.

What the tests of this folder and the sanitizer run, on whatever device the inputs are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from genselfdiff.kernels import add_noise, group_norm_silu, linear_attention, multi_loss, p2_loss

Tensors = dict[str, torch.Tensor]
Shape = tuple[int, ...]

STEPS = 50
HEADS, FEATURES = 4, 32
"""Of the published network: what is compiled ahead."""


@dataclass(frozen=True, eq=False)
class Case:
    """An operation, forward and backward.

    Attributes:
        name: of the operation, with what tells its cases apart.
        dtype: of its images.
        inputs: on the CPU, images channels_last; "grad_y" is the gradient of the result.
        run: from inputs, on any device and in any dtype, to results and gradients.
        limit: of the error in float32.
    """

    name: str
    dtype: torch.dtype
    inputs: Tensors
    run: Callable[[Tensors], Tensors]
    limit: float = 1e-5

    def on(self, device: torch.device) -> Tensors:
        """The inputs there."""
        return {name: value.to(device) for name, value in self.inputs.items()}

    def exact(self) -> Tensors:
        """The inputs in float64, on the CPU."""
        return {name: _exact(value) for name, value in self.inputs.items()}


def _exact(value: torch.Tensor) -> torch.Tensor:
    if value.dtype == torch.uint8:  # grey levels, as what they stand for
        return value.double() / 127.5 - 1.0
    return value.double() if value.is_floating_point() else value


def norm(shape: Shape, dtype: torch.dtype, groups: int = 8, centre: float = 0.0) -> Case:
    """GroupNorm and SiLU with everything that the residual block adds."""
    draw = _drawing(dtype)
    inputs = {
        "x": draw(*shape, layout=torch.channels_last, centre=centre),
        "weight": draw(shape[1]),
        "bias": draw(shape[1]),
        "shift": draw(*shape[:2]),
        "residual": draw(*shape, layout=torch.channels_last),
        "grad_y": draw(*shape, layout=torch.channels_last),
    }

    run = partial(_block, partial(group_norm_silu, groups=groups))

    # About a mean of many deviations float32 itself knows less of x.
    return Case(f"group_norm_silu {shape}", dtype, inputs, run, 1e-5 * (1.0 + abs(centre)))


def attention(shape: Shape, dtype: torch.dtype, centre: float = 0.0) -> Case:
    """The block of linear attention."""
    draw, c, hidden = _drawing(dtype), shape[1], HEADS * FEATURES
    inputs = {
        "x": draw(*shape, layout=torch.channels_last, centre=centre),
        "norm_weight": draw(c),
        "norm_bias": draw(c),
        "qkv_weight": draw(3 * hidden, c, 1, 1, scale=c**-0.5),
        "out_weight": draw(c, hidden, 1, 1, scale=hidden**-0.5),
        "out_bias": draw(c),
        "out_norm_weight": draw(c),
        "out_norm_bias": draw(c),
        "grad_y": draw(*shape, layout=torch.channels_last),
    }

    run = partial(_block, partial(linear_attention, heads=HEADS))

    return Case(f"linear_attention {shape}", dtype, inputs, run, 5e-5 * (1.0 + abs(centre)))


def loss(shape: Shape, dtype: torch.dtype, form: str = "scalar", ignored: bool = False) -> Case:
    """The multi-loss; where pixels are ignored, classes have weights too."""
    draw, (n, classes, *plane) = _drawing(dtype), shape
    labels = torch.randint(classes, (n, *plane), generator=torch.Generator().manual_seed(3))
    inputs = {"logits": draw(*shape, scale=2.0), "labels": labels}
    if ignored:
        inputs["labels"] = torch.where(labels == 0, 255, labels)
        inputs["class_weights"] = draw(classes).abs()
    ignore_label = 255 if ignored else None

    def run(values: Tensors) -> Tensors:
        values = dict(values)
        labels, weights = values.pop("labels"), values.pop("class_weights", None)
        leaves = _leaves(values)
        value = multi_loss(
            **leaves, labels=labels, form=form, class_weights=weights, ignore_label=ignore_label
        )
        return {"loss": value.detach(), **_gradients(value, leaves, None)}

    told = f"multi_loss {form}{', ignoring' if ignored else ''} {shape}"
    # A pixel that rounding moves over its threshold makes the gradient jump.
    return Case(told, dtype, inputs, run, 1e-3)


def noise(shape: Shape, dtype: torch.dtype) -> Case:
    """Forward diffusion."""
    generator = torch.Generator().manual_seed(5)
    levels = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    inputs = {
        "x0": levels if dtype == torch.uint8 else (levels / 127.5 - 1.0).to(dtype),
        "t": torch.arange(shape[0]) * 17 % STEPS,
        "alpha_bars": torch.linspace(0.9999, 0.0001, STEPS, dtype=torch.float64),
    }

    def run(values: Tensors) -> Tensors:
        x_t, added = add_noise(**values, seed=-7, offset=2**33 + 1)
        return {"x_t": x_t, "noise": added}

    return Case(f"add_noise {shape}", dtype, inputs, run)


def p2(shape: Shape, dtype: torch.dtype, reduction: str = "mean") -> Case:
    """The weighted error of the predicted noise."""
    draw = _drawing(dtype)
    inputs = {
        "pred": draw(*shape),
        "noise": draw(*shape),
        "t": torch.arange(shape[0]) * 17 % STEPS,
        "weights": torch.linspace(1.0, 0.1, STEPS, dtype=torch.float64),
    }

    def run(values: Tensors) -> Tensors:
        leaves = _leaves({name: values[name] for name in ("pred", "noise")})
        value = p2_loss(**leaves, t=values["t"], weights=values["weights"], reduction=reduction)
        return {"loss": value.detach(), **_gradients(value, leaves, None)}

    return Case(f"p2_loss {reduction} {shape}", dtype, inputs, run)


def smallest(dtype: torch.dtype) -> list[Case]:
    """Each operation on as little as shows all that it does: sizes that no block divides."""
    return [
        norm((2, 16, 5, 3), dtype),
        attention((1, 16, 5, 3), dtype),
        loss((2, 3, 5, 7), dtype),
        loss((1, 3, 5, 7), dtype, "pixel", ignored=True),
        noise((2, 3, 5, 7), dtype),
        noise((2, 3, 5, 7), torch.uint8),
        p2((2, 3, 5, 7), dtype),
    ]


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Norm of the difference, relative to that of the truth; NaN where a number is NaN."""
    difference = (found.double().cpu() - exact).norm().item()
    return difference / max(exact.norm().item(), 1e-30)


def _drawing(dtype: torch.dtype) -> Callable[..., torch.Tensor]:
    """What draws normal numbers."""
    generator = torch.Generator().manual_seed(6)

    def draw(
        *size: int,
        scale: float = 1.0,
        centre: float = 0.0,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> torch.Tensor:
        values = centre + scale * torch.randn(size, generator=generator)
        return values.to(dtype).contiguous(memory_format=layout)

    return draw


def _block(function: Callable[..., torch.Tensor], values: Tensors) -> Tensors:
    """What a part of the network gives and, of "grad_y", the gradients of its inputs."""
    values = dict(values)
    grad_y, leaves = values.pop("grad_y"), _leaves(values)
    y = function(**leaves)
    return {"y": y.detach(), **_gradients(y, leaves, grad_y)}


def _leaves(values: Tensors) -> Tensors:
    return {name: value.detach().requires_grad_() for name, value in values.items()}


def _gradients(y: torch.Tensor, leaves: Tensors, grad_y: torch.Tensor | None) -> Tensors:
    found = torch.autograd.grad(y, list(leaves.values()), grad_y)
    return {f"gradient of {name}": g for name, g in zip(leaves, found, strict=True)}
