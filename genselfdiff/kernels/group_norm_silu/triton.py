"""GroupNorm, SiLU and what the residual block adds, on channels_last memory, as Triton kernels.

Statistics are split over runs of tokens, one writer a slot, and merged in a fixed order: one large
image fills the GPU, and every run of the program gives the same bits.
"""

import torch
import triton
import triton.language as tl

from genselfdiff.kernels.checks import check_dtype, kernel_parameters
from genselfdiff.kernels.launching import cdiv, launched
from genselfdiff.kernels.tiles import tiles

# Slots that a merging program holds at once: few programs merge, and what they wait for is memory.
MERGED_RUNS, MERGED_C, MERGING = 256, 16, {"num_warps": 8}


def forward(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    groups: int,
    shift: torch.Tensor | None,
    residual: torch.Tensor | None,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Triton's ``gsd::group_norm_silu``: the result and the groups' mean and 1 / deviation."""
    n, channels, tokens = _checked_shape(x, groups)
    x = x.contiguous(memory_format=torch.channels_last)
    named = {"weight": (weight, channels), "bias": (bias, channels)}
    if shift is not None:
        named["shift"] = (shift, n * channels)
    weight, bias, *shifts = kernel_parameters("group_norm_silu", x.dtype, named)
    shifted = bias if shift is None else shifts[0]
    added = x if residual is None else _like("residual", residual, x)
    y = torch.empty_like(x)
    if x.numel() == 0:
        mean = x.new_empty((n, groups), dtype=torch.float32)
        return y, mean, torch.empty_like(mean)
    mean, rstd = moments(x, groups, eps)
    tile = tiles("group_norm_silu.apply", x)
    apply_kernel[(cdiv(tokens, tile.block_t), cdiv(channels, tile.block_c), n)](
        x, weight, bias, mean, rstd, shifted, added, y,
        int(shift is not None), int(residual is not None),
        tokens, channels, groups, tile.block_t, tile.block_c, **tile.options,
    )  # fmt: skip
    return y, mean, rstd


def backward(
    grad_y: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    mean: torch.Tensor,
    rstd: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Triton's ``gsd::group_norm_silu_backward``: gradients in x, weight, bias and shift."""
    if mean.dim() != 2 or rstd.dim() != 2 or mean.shape[0] != x.shape[0]:
        raise RuntimeError("group_norm_silu_backward: mean and rstd must have shape (N, groups)")
    groups = mean.shape[1]
    n, channels, tokens = _checked_shape(x, groups)
    x = x.contiguous(memory_format=torch.channels_last)
    grad_y = _like("grad_y", grad_y, x)
    weight, bias = kernel_parameters(
        "group_norm_silu", x.dtype, {"weight": (weight, channels), "bias": (bias, channels)}
    )
    statistics = {"mean": (mean, n * groups), "rstd": (rstd, n * groups)}
    mean, rstd = kernel_parameters("group_norm_silu", torch.float32, statistics)
    grad_x = torch.empty_like(x)
    by_image = mean.new_zeros((3, n, channels))
    if x.numel() > 0:
        tile = tiles("group_norm_silu.sums", x)
        runs = cdiv(tokens, tile.run)
        sums = mean.new_empty((n, runs, 3, channels))
        gradient_sums_kernel[(runs, cdiv(channels, tile.block_c), n)](
            grad_y, x, weight, bias, mean, rstd, sums,
            tokens, channels, groups, tile.run, tile.block_t, tile.block_c, **tile.options,
        )  # fmt: skip
        terms = mean.new_empty((2, n, groups))
        merge_gradients_kernel[(groups, n)](
            sums, weight, by_image, terms, tokens, channels, runs, MERGED_RUNS, MERGED_C,
            **MERGING,
        )  # fmt: skip
        tile = tiles("group_norm_silu.apply", x)
        grid = (cdiv(tokens, tile.block_t), cdiv(channels, tile.block_c), n)
        gradient_kernel[grid](
            grad_y, x, weight, bias, mean, rstd, terms, grad_x,
            tokens, channels, groups, tile.block_t, tile.block_c, **tile.options,
        )  # fmt: skip
    grad_weight, grad_bias, _ = by_image.sum(1)
    return grad_x, grad_weight, grad_bias, by_image[2].clone()


def moments(x: torch.Tensor, groups: int, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and 1 / sqrt(variance + eps) of the groups of a channels_last tensor, both (N, groups).

    Precise for a mean of many deviations: squares are taken about a value near the mean.
    """
    n, channels, tokens = x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
    tile = tiles("group_norm_silu.sums", x)
    runs = cdiv(tokens, tile.run)
    parts = x.new_empty((n, runs, 2, channels), dtype=torch.float32)
    channel_moments_kernel[(runs, cdiv(channels, tile.block_c), n)](
        x, parts, tokens, channels, tile.run, tile.block_t, tile.block_c, **tile.options
    )
    mean = x.new_empty((n, groups), dtype=torch.float32)
    rstd = torch.empty_like(mean)
    merge_moments_kernel[(groups, n)](
        parts, mean, rstd, eps, tokens, channels, runs, tile.run, MERGED_RUNS, MERGED_C,
        **MERGING,
    )  # fmt: skip
    return mean, rstd


def _checked_shape(x: torch.Tensor, groups: int) -> tuple[int, int, int]:
    """Images, channels and tokens."""
    check_dtype("group_norm_silu", "x", x, (torch.float32, torch.bfloat16))
    if x.dim() != 4:
        raise RuntimeError("group_norm_silu: x must have shape (N, C, H, W)")
    n, channels, height, width = x.shape
    if groups < 1 or channels < 1 or channels % groups:
        raise RuntimeError(f"group_norm_silu: {groups} groups do not divide {channels} channels")
    return n, channels, height * width


def _like(name: str, tensor: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    if tensor.shape != x.shape or tensor.dtype != x.dtype:
        raise RuntimeError(f"group_norm_silu: {name} must have the shape and dtype of x")
    return tensor.contiguous(memory_format=torch.channels_last)


# In all kernels x and what is shaped like it is (N, tokens, C) in memory, float32 or bfloat16.


@triton.jit
def _tile(first, tokens, channels, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr):
    """Offsets of a tile of tokens from `first` and of this program's channels; where it is."""
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    t = first + tl.arange(0, BLOCK_T)
    image = tl.program_id(2).to(tl.int64) * tokens * channels
    at = image + t[:, None].to(tl.int64) * channels + c[None, :]
    return at, (t < tokens)[:, None] & (c < channels)[None, :], c


@launched
@triton.jit(do_not_specialize=["tokens"])
def channel_moments_kernel(
    x,
    parts,  # (N, runs, 2, C) float32: mean, and summed squared deviations from it
    tokens,
    channels,
    RUN: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    first = tl.program_id(0) * RUN
    at, inside, c = _tile(first, tokens, channels, BLOCK_T, BLOCK_C)
    values = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    near = tl.sum(values, axis=0) / tl.minimum(tokens - first, BLOCK_T).to(tl.float32)
    total = tl.zeros([BLOCK_T, BLOCK_C], tl.float32)
    squares = tl.zeros([BLOCK_T, BLOCK_C], tl.float32)
    for start in range(0, RUN, BLOCK_T):
        at, inside, c = _tile(first + start, tokens, channels, BLOCK_T, BLOCK_C)
        values = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        apart = tl.where(inside, values - near[None, :], 0.0)
        total += apart
        squares += apart * apart
    count = tl.minimum(tokens - first, RUN).to(tl.float32)
    shift = tl.sum(total, axis=0)
    slot = (tl.program_id(2).to(tl.int64) * tl.num_programs(0) + tl.program_id(0)) * 2 * channels
    tl.store(parts + slot + c, near + shift / count, mask=c < channels)
    about_mean = tl.sum(squares, axis=0) - shift * shift / count
    tl.store(parts + slot + channels + c, tl.maximum(about_mean, 0.0), mask=c < channels)


@triton.jit
def _slots(run, c, runs, channels, last, PER_SLOT: tl.constexpr):
    """Offsets of this image's slots of some runs and channels, and where they are."""
    image = tl.program_id(1).to(tl.int64) * runs
    at = (image + run[:, None]) * PER_SLOT * channels + c[None, :]
    return at, (run < runs)[:, None] & (c < last)[None, :]


@launched
@triton.jit(do_not_specialize=["eps", "tokens", "channels", "runs"])
def merge_moments_kernel(
    parts,  # (N, runs, 2, C) float32
    mean,  # (N, groups) float32
    rstd,  # (N, groups) float32
    eps,
    tokens,
    channels,
    runs,
    RUN: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    per_group = channels // tl.num_programs(0)
    first = tl.program_id(0) * per_group
    elements = tokens.to(tl.float64) * per_group.to(tl.float64)
    about = tl.load(parts + tl.program_id(1).to(tl.int64) * runs * 2 * channels + first)
    about = about.to(tl.float64)
    shifts = tl.zeros([BLOCK_R, BLOCK_C], tl.float64)
    squares = tl.zeros([BLOCK_R, BLOCK_C], tl.float64)
    for r in range(0, runs, BLOCK_R):
        run = r + tl.arange(0, BLOCK_R)
        count = tl.minimum(tokens - run * RUN, RUN).to(tl.float64)[:, None]
        for begin in range(first, first + per_group, BLOCK_C):
            c = begin + tl.arange(0, BLOCK_C)
            at, inside = _slots(run, c, runs, channels, first + per_group, 2)
            apart = tl.load(parts + at, mask=inside, other=0.0).to(tl.float64) - about
            within = tl.load(parts + at + channels, mask=inside, other=0.0).to(tl.float64)
            shifts += tl.where(inside, count * apart, 0.0)
            squares += tl.where(inside, within + count * apart * apart, 0.0)
    shift = tl.sum(shifts) / elements
    variance = tl.sum(squares) / elements - shift * shift
    to = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    tl.store(mean + to, (about + shift).to(tl.float32))
    tl.store(rstd + to, (1.0 / tl.sqrt(variance + eps)).to(tl.float32))


@triton.jit
def _normed(x, mean, rstd, c, channels, groups):
    group = tl.program_id(2) * groups + c // (channels // groups)
    centre = tl.load(mean + group, mask=c < channels, other=0.0)
    scale = tl.load(rstd + group, mask=c < channels, other=0.0)
    return (x - centre[None, :]) * scale[None, :], scale


@launched
@triton.jit(do_not_specialize=["has_shift", "has_residual", "tokens", "groups"])
def apply_kernel(
    x,
    weight,  # (C), float32 or of x's dtype, as all parameters
    bias,  # (C)
    mean,  # (N, groups) float32
    rstd,  # (N, groups) float32
    shift,  # (N, C), unless has_shift is 0
    residual,  # unless has_residual is 0
    y,
    has_shift,
    has_residual,
    tokens,
    channels,
    groups,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    at, inside, c = _tile(tl.program_id(0) * BLOCK_T, tokens, channels, BLOCK_T, BLOCK_C)
    here = c < channels
    values = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    normed, _ = _normed(values, mean, rstd, c, channels, groups)
    gain = tl.load(weight + c, mask=here, other=0.0).to(tl.float32)
    offset = tl.load(bias + c, mask=here, other=0.0).to(tl.float32)
    z = normed * gain[None, :] + offset[None, :]
    result = z * tl.sigmoid(z)
    if has_shift != 0:
        added = tl.load(shift + tl.program_id(2) * channels + c, mask=here, other=0.0)
        result += added.to(tl.float32)[None, :]
    if has_residual != 0:
        result += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + at, result.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _through_silu(at, inside, c, grad_y, x, weight, bias, mean, rstd, channels, groups):
    """Gradients in y and in z = normed * weight + bias, with normed, weight and rstd."""
    here = c < channels
    values = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(grad_y + at, mask=inside, other=0.0).to(tl.float32)
    normed, scale = _normed(values, mean, rstd, c, channels, groups)
    gain = tl.load(weight + c, mask=here, other=0.0).to(tl.float32)
    offset = tl.load(bias + c, mask=here, other=0.0).to(tl.float32)
    z = normed * gain[None, :] + offset[None, :]
    s = tl.sigmoid(z)
    return g, g * (s + z * s * (1.0 - s)), normed, gain, scale


@launched
@triton.jit(do_not_specialize=["tokens", "groups"])
def gradient_sums_kernel(
    grad_y,
    x,
    weight,  # (C)
    bias,  # (C)
    mean,  # (N, groups) float32
    rstd,  # (N, groups) float32
    sums,  # (N, runs, 3, C) float32: of grad_z * normed, grad_z, grad_y
    tokens,
    channels,
    groups,
    RUN: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    first = tl.program_id(0) * RUN
    by_normed = tl.zeros([BLOCK_T, BLOCK_C], tl.float32)
    by_z = tl.zeros([BLOCK_T, BLOCK_C], tl.float32)
    by_y = tl.zeros([BLOCK_T, BLOCK_C], tl.float32)
    for start in range(0, RUN, BLOCK_T):
        at, inside, c = _tile(first + start, tokens, channels, BLOCK_T, BLOCK_C)
        g, grad_z, normed, _, _ = _through_silu(
            at, inside, c, grad_y, x, weight, bias, mean, rstd, channels, groups
        )
        by_normed += grad_z * normed
        by_z += grad_z
        by_y += g
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    slot = tl.program_id(2).to(tl.int64) * tl.num_programs(0) + tl.program_id(0)
    to = sums + slot * 3 * channels + c
    tl.store(to, tl.sum(by_normed, axis=0), mask=c < channels)
    tl.store(to + channels, tl.sum(by_z, axis=0), mask=c < channels)
    tl.store(to + 2 * channels, tl.sum(by_y, axis=0), mask=c < channels)


@launched
@triton.jit(do_not_specialize=["tokens", "channels", "runs"])
def merge_gradients_kernel(
    sums,  # (N, runs, 3, C) float32
    weight,  # (C)
    by_image,  # (3, N, C) float32: the sums over all runs
    terms,  # (2, N, groups) float32: means over the group of grad_normed, grad_normed * normed
    tokens,
    channels,
    runs,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    per_group = channels // tl.num_programs(0)
    first = tl.program_id(0) * per_group
    image_channels = tl.program_id(1) * channels
    all_images = tl.num_programs(1) * channels
    total = tl.zeros([BLOCK_C], tl.float64)
    total_by_normed = tl.zeros([BLOCK_C], tl.float64)
    for begin in range(first, first + per_group, BLOCK_C):
        c = begin + tl.arange(0, BLOCK_C)
        here = c < first + per_group
        by_normed = tl.zeros([BLOCK_R, BLOCK_C], tl.float64)
        by_z = tl.zeros([BLOCK_R, BLOCK_C], tl.float64)
        by_y = tl.zeros([BLOCK_R, BLOCK_C], tl.float64)
        for r in range(0, runs, BLOCK_R):
            run = r + tl.arange(0, BLOCK_R)
            at, inside = _slots(run, c, runs, channels, first + per_group, 3)
            by_normed += tl.load(sums + at, mask=inside, other=0.0).to(tl.float64)
            by_z += tl.load(sums + at + channels, mask=inside, other=0.0).to(tl.float64)
            by_y += tl.load(sums + at + 2 * channels, mask=inside, other=0.0).to(tl.float64)
        gain = tl.load(weight + c, mask=here, other=0.0).to(tl.float64)
        normed_sum, z_sum = tl.sum(by_normed, axis=0), tl.sum(by_z, axis=0)
        total += gain * z_sum
        total_by_normed += gain * normed_sum
        to = by_image + image_channels + c
        tl.store(to, normed_sum.to(tl.float32), mask=here)
        tl.store(to + all_images, z_sum.to(tl.float32), mask=here)
        tl.store(to + 2 * all_images, tl.sum(by_y, axis=0).to(tl.float32), mask=here)
    elements = tokens.to(tl.float64) * per_group.to(tl.float64)
    to = terms + tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    tl.store(to, (tl.sum(total) / elements).to(tl.float32))
    by_normed_mean = (tl.sum(total_by_normed) / elements).to(tl.float32)
    tl.store(to + tl.num_programs(0) * tl.num_programs(1), by_normed_mean)


@launched
@triton.jit(do_not_specialize=["tokens", "groups"])
def gradient_kernel(
    grad_y,
    x,
    weight,  # (C)
    bias,  # (C)
    mean,  # (N, groups) float32
    rstd,  # (N, groups) float32
    terms,  # (2, N, groups) float32
    grad_x,
    tokens,
    channels,
    groups,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    at, inside, c = _tile(tl.program_id(0) * BLOCK_T, tokens, channels, BLOCK_T, BLOCK_C)
    _, grad_z, normed, gain, scale = _through_silu(
        at, inside, c, grad_y, x, weight, bias, mean, rstd, channels, groups
    )
    of_group = terms + tl.program_id(2) * groups + c // (channels // groups)
    one = tl.load(of_group, mask=c < channels, other=0.0)
    other = tl.load(of_group + tl.num_programs(2) * groups, mask=c < channels, other=0.0)
    result = scale[None, :] * (grad_z * gain[None, :] - one[None, :] - normed * other[None, :])
    tl.store(grad_x + at, result.to(grad_x.dtype.element_ty), mask=inside)
