"""The registry: every operation at the sizes of the "paper" network, in every form.

``cases`` is what ``test_operations.py`` times.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from unittest import mock

import baselines
import torch
from forms import (
    Arguments,
    Form,
    Make,
    Tensors,
    backward,
    compiled,
    eager_forms,
    forward,
    in_float64,
    loss_gradient,
)
from timing import Ceilings

from genselfdiff.kernels import (
    add_noise,
    group_norm_silu,
    linear_attention,
    multi_loss,
    multi_loss_components,
    p2_loss,
)
from genselfdiff.kernels.group_norm_silu import reference as group_norm_silu_reference
from genselfdiff.kernels.linear_attention import reference as linear_attention_reference
from genselfdiff.kernels.p2_loss import reference as p2_loss_reference
from genselfdiff.models import unet
from genselfdiff.models.registry import create_model

DTYPES = (torch.float32, torch.bfloat16)
BATCH = 8
"""Of noise and losses: that of the paper's training."""
LARGE_BATCH = 4
"""Makes the first level's tensors larger than a last-level cache of 32 MiB."""
CLASSES = 4
ALPHA_BARS = torch.linspace(0.9999, 0.0001, 1000, dtype=torch.float64)
CPU = torch.device("cpu")

Image = tuple[int, ...]
Truth = Callable[[Tensors], Tensors]


@dataclass(frozen=True, eq=False)
class Case:
    """One operation and direction at one size and dtype.

    Attributes:
        operation: with the direction.
        size: of the tensor that it is about.
        dtype: of that tensor.
        arguments: makes them, the same ones each time.
        forms: by name; "ours" among them.
        truth: from the arguments, the right results in float64 for what a form has found.
        floor_bytes: what has to be read and written at the least.
        floor_flops: of the matrix products that there must be, two for each multiplication.
    """

    operation: str
    size: tuple[int, ...]
    dtype: torch.dtype
    arguments: Callable[[], Arguments]
    forms: dict[str, Form]
    truth: Callable[[Arguments], Truth]
    floor_bytes: int
    floor_flops: int = 0

    @property
    def name(self) -> str:
        size = "x".join(map(str, self.size))
        return f"{self.operation} {size} {str(self.dtype).removeprefix('torch.')}"

    def predicted_seconds(self, gpu: Ceilings) -> float:
        """At the least, of what no cache holds: the longer of bytes moved and products made."""
        # Of a float32 product three are made of tf32, each at half the rate of bfloat16.
        products = self.floor_flops * (1 if self.dtype == torch.bfloat16 else 6)
        return max(self.floor_bytes / gpu.bandwidth, products / gpu.bfloat16_rate)


def cases(
    tile: int = 256, device: torch.device = CPU, batches: Sequence[int] | None = None
) -> Iterator[Case]:
    """All of them, for tiles of that many pixels a side.

    ``batches`` has every operation at each of these; None: what a CPU is measured by.
    """
    attention, norms = _network_sizes(tile)
    for direction in (forward, backward):
        for dtype in DTYPES:
            for size, compile in _sizes(attention, batches):
                yield _attention(direction, size, dtype, device, compile)
    for direction in (forward, backward):
        for dtype in DTYPES:
            for added in ("shift", "residual"):
                for size, compile in _sizes(norms, batches):
                    yield _norm(direction, size, dtype, device, added, compile)
    for batch in batches or (BATCH,):
        for dtype in DTYPES:
            yield _multi_loss((batch, CLASSES, tile, tile), dtype, device)
        for dtype in (torch.uint8, *DTYPES):
            yield _noise((batch, 3, tile, tile), dtype, device)
        for dtype in DTYPES:
            yield _p2((batch, 3, tile, tile), dtype, device)


def _sizes(
    images: list[Image], batches: Sequence[int] | None
) -> Iterator[tuple[tuple[int, ...], bool]]:
    """Sizes of batches of the images, and whether they are worth compiling plain torch for."""
    if batches is None:
        yield (LARGE_BATCH, *images[0]), False
    for batch in batches or (1,):
        for image in images:
            yield (batch, *image), image == images[0]


def _network_sizes(tile: int) -> tuple[list[Image], list[Image]]:
    """Images that the network hands to attention (all) and norm (the widest of each level)."""
    attention, norms = set(), {}

    def see_attention(x: torch.Tensor, *_: object) -> torch.Tensor:
        attention.add(tuple(x.shape[1:]))
        return x

    def see_norm(x: torch.Tensor, *_: object) -> torch.Tensor:
        channels, *side = x.shape[1:]
        norms[tuple(side)] = max(channels, norms.get(tuple(side), 0))
        return x

    seen = {"linear_attention": see_attention, "group_norm_silu": see_norm}
    with torch.device("meta"), mock.patch.multiple(unet, **seen):
        create_model("paper")(torch.empty(1, 3, tile, tile), torch.empty(1, dtype=torch.int64))
    widest_first = sorted(attention, key=math.prod, reverse=True)
    return widest_first, [(channels, *side) for side, channels in norms.items()]


def _attention(
    make: Make, size: tuple[int, ...], dtype: torch.dtype, device: torch.device, compile: bool
) -> Case:
    channels, hidden = size[1], unet.HEADS * unet.HEAD_DIM
    sizes = {
        "x": size,
        "norm_weight": (channels,),
        "norm_bias": (channels,),
        "qkv_weight": (3 * hidden, channels, 1, 1),
        "out_weight": (channels, hidden, 1, 1),
        "out_bias": (channels,),
        "out_norm_weight": (channels,),
        "out_norm_bias": (channels,),
    }
    plain = partial(linear_attention_reference.linear_attention, heads=unet.HEADS)
    authors = partial(baselines.linear_attention, heads=unet.HEADS)
    # At the least x is read for the statistics, for k and v, and for q; backward the same twice,
    # once with the gradient. Of C x hidden products there are q, k, v and the output; backward
    # q, k, v, the output and its gradient in q and in the folded matrix, and those of q, k and v
    # in x and in their weights. Context and folded matrix have products of each head alone.
    by_channels, by_head = (4, 1) if make is forward else (12, 2)
    per_pixel = 2 * hidden * (by_channels * channels + by_head * unet.HEAD_DIM)
    return Case(
        operation=f"linear_attention {make.__name__}",
        size=size,
        dtype=dtype,
        arguments=_drawn(make, sizes, dtype, device),
        forms={
            **eager_forms(make, authors, dtype),
            "plain": make(plain, torch.channels_last),
            **({"compile": make(compiled(plain), torch.channels_last)} if compile else {}),
            "ours": make(partial(linear_attention, heads=unet.HEADS), torch.channels_last),
        },
        truth=_same_in_float64(make(authors)),
        floor_bytes=(3 if make is forward else 5) * math.prod(size) * dtype.itemsize,
        floor_flops=math.prod(size) // channels * per_pixel,
    )


def _norm(
    make: Make,
    size: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    added: str,
    compile: bool,
) -> Case:
    channels = size[1]
    sizes = {
        "x": size,
        "weight": (channels,),
        "bias": (channels,),
        added: size if added == "residual" else size[:2],
    }
    plain = partial(group_norm_silu_reference.group_norm_silu, groups=unet.GROUPS)
    arrays = 2 if make is forward and added == "shift" else 3
    return Case(
        operation=f"group_norm_silu + {added} {make.__name__}",
        size=size,
        dtype=dtype,
        arguments=_drawn(make, sizes, dtype, device),
        forms={
            **eager_forms(make, plain, dtype),
            **({"compile": make(compiled(plain), torch.channels_last)} if compile else {}),
            "ours": make(partial(group_norm_silu, groups=unet.GROUPS), torch.channels_last),
        },
        truth=_same_in_float64(make(plain)),
        floor_bytes=arrays * math.prod(size) * dtype.itemsize,
    )


def _multi_loss(size: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Case:
    planes = (size[0], *size[2:])

    def arguments() -> Arguments:
        drawn = {"generator": torch.Generator(device).manual_seed(0), "device": device}
        return {
            "logits": torch.randn(size, **drawn).to(dtype),
            "labels": torch.randint(CLASSES, planes, **drawn),
        }

    def plain(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        similarity, focal = multi_loss_components(logits, labels)
        return similarity + focal

    return Case(
        operation="multi_loss forward and backward",
        size=size,
        dtype=dtype,
        arguments=arguments,
        forms={
            **eager_forms(loss_gradient, baselines.multi_loss, dtype),
            "plain": loss_gradient(plain),
            "compile": loss_gradient(compiled(plain)),
            "ours": loss_gradient(multi_loss),
        },
        truth=_same_in_float64(loss_gradient(baselines.multi_loss)),
        floor_bytes=2 * math.prod(size) * dtype.itemsize + 8 * math.prod(planes),
    )


def _noise(size: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Case:
    found_dtype = torch.float32 if dtype == torch.uint8 else dtype
    steps, alpha_bars = _steps(size[0]).to(device), ALPHA_BARS.to(device)
    signal, spread = alpha_bars[steps].sqrt(), (1 - alpha_bars[steps]).sqrt()

    def arguments() -> Arguments:
        generator = torch.Generator(device).manual_seed(0)
        levels = torch.randint(256, size, generator=generator, device=device)
        return {"x0": (levels if dtype == torch.uint8 else levels / 127.5 - 1).to(dtype)}

    def plain(x0: torch.Tensor) -> Tensors:
        """In place, the scaling of grey levels folded into the factors."""
        noise = torch.randn(size, dtype=found_dtype, device=x0.device)
        factor, spreads = _per_image(signal, noise), _per_image(spread, noise)
        grey = x0.dtype == torch.uint8
        x_t = (x0 * (factor / 127.5)).sub_(factor) if grey else x0 * factor
        return x_t.addcmul_(noise, spreads), noise

    def truth(arguments: Arguments) -> Truth:
        clean = arguments["x0"].double()
        if dtype == torch.uint8:
            clean = clean / 127.5 - 1

        def given_the_noise(found: Tensors) -> Tensors:
            noise = found[1].double()
            return _per_image(signal, noise) * clean + _per_image(spread, noise) * noise, noise

        return given_the_noise

    return Case(
        operation="add_noise",
        size=size,
        dtype=dtype,
        arguments=arguments,
        forms={
            "authors": forward(partial(baselines.add_noise, t=steps, alpha_bars=alpha_bars)),
            "plain": forward(plain),
            "compile": forward(compiled(plain)),
            "ours": forward(partial(add_noise, t=steps, alpha_bars=alpha_bars, seed=1)),
        },
        truth=truth,
        floor_bytes=math.prod(size) * (dtype.itemsize + 2 * found_dtype.itemsize),
    )


def _p2(size: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Case:
    weights = {"t": _steps(size[0]).to(device), "weights": 1 - ALPHA_BARS.to(device)}

    def plain(pred: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return p2_loss_reference.p2_loss(pred, noise, mean=True, **weights)[0]

    authors = loss_gradient(partial(baselines.p2_loss, **weights))
    return Case(
        operation="p2_loss forward and backward",
        size=size,
        dtype=dtype,
        arguments=_drawn(forward, {"pred": size, "noise": size}, dtype, device),
        forms={
            "authors": authors,
            "plain": loss_gradient(plain),
            "compile": loss_gradient(compiled(plain)),
            "ours": loss_gradient(partial(p2_loss, **weights)),
        },
        truth=_same_in_float64(authors),
        floor_bytes=3 * math.prod(size) * dtype.itemsize,
    )


def _steps(batch: int) -> torch.Tensor:
    """Time steps of the images, evenly apart."""
    return torch.arange(batch) * len(ALPHA_BARS) // batch


def _per_image(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return values.to(like).reshape(-1, 1, 1, 1)


def _drawn(
    make: Make, sizes: dict[str, tuple[int, ...]], dtype: torch.dtype, device: torch.device
) -> Callable[[], Arguments]:
    """Standard normal arguments, convolutions scaled to keep that; for backward, "upstream" too."""

    def arguments() -> Arguments:
        generator = torch.Generator(device).manual_seed(0)
        upstream = {"upstream": next(iter(sizes.values()))} if make is backward else {}
        drawn = {}
        for name, size in (sizes | upstream).items():
            scale = size[1] ** -0.5 if name.endswith("weight") and len(size) == 4 else 1.0
            drawn[name] = (scale * torch.randn(size, generator=generator, device=device)).to(dtype)
        return drawn

    return arguments


def _same_in_float64(form: Form) -> Callable[[Arguments], Truth]:
    def truth(arguments: Arguments) -> Truth:
        exact = in_float64(form, arguments)
        return lambda _: exact

    return truth
