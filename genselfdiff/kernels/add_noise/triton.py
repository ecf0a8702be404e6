"""Forward diffusion with counter-based noise in one pass on the GPU, as a Triton kernel."""

import torch
import triton
import triton.language as tl

from genselfdiff.kernels.add_noise import reference
from genselfdiff.kernels.checks import check_dtype, check_times
from genselfdiff.kernels.launching import cdiv, launched

_COUNTERS = 256  # a program's; each gives four normals
_MULTIPLIER_0, _MULTIPLIER_1 = tl.constexpr(0xD2511F53), tl.constexpr(0xCD9E8D57)
_WEYL_0, _WEYL_1 = tl.constexpr(0x9E3779B9), tl.constexpr(0xBB67AE85)


def add_noise(
    x0: torch.Tensor, t: torch.Tensor, alpha_bars: torch.Tensor, seed: int, offset: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Triton's ``gsd::add_noise``; see :func:`genselfdiff.kernels.add_noise`.

    The device does not stop to look at ``t``: the samples of a step outside the table become NaN.
    """
    reference.check(x0, offset)
    check_dtype("add_noise", "x0", x0, (torch.uint8, torch.float32, torch.bfloat16))
    check_times("add_noise", t, x0.shape[0], alpha_bars, "alpha_bars")
    x0 = x0.contiguous()
    dtype = reference.result_dtype(x0)
    x_t, noise = torch.empty_like(x0, dtype=dtype), torch.empty_like(x0, dtype=dtype)
    if x0.numel() == 0:
        return x_t, noise
    table = alpha_bars.to(device=x0.device, dtype=torch.float64).contiguous()
    batch = x0.shape[0]
    size = x0.numel() // batch
    add_noise_kernel[(cdiv(size, 4 * _COUNTERS), batch)](
        x0, t.contiguous(), table, x_t, noise, seed, offset, size, len(table), _COUNTERS
    )
    return x_t, noise


@launched
@triton.jit(do_not_specialize=["seed", "offset", "steps"])
def add_noise_kernel(
    x0,  # (N, size) uint8, float32 or bfloat16
    t,  # (N) int64
    alpha_bars,  # (steps) float64
    x_t,  # (N, size)
    noise,  # (N, size)
    seed: tl.int64,
    offset: tl.int64,
    size: tl.int64,
    steps: tl.int64,
    COUNTERS: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    first = tl.program_id(0).to(tl.int64) * COUNTERS
    element = 4 * first + tl.arange(0, 4 * COUNTERS)
    inside = element < size
    n = _normals(first + tl.arange(0, COUNTERS), offset + image, seed)

    step = tl.load(t + image)
    known = (step >= 0) & (step < steps)
    power = tl.load(alpha_bars + step, mask=known, other=float("nan"))
    signal, sigma = tl.sqrt(power).to(tl.float32), tl.sqrt(1.0 - power).to(tl.float32)
    clean = tl.load(x0 + image * size + element, mask=inside)
    if x0.dtype.element_ty == tl.uint8:
        clean = (2 * clean.to(tl.int32) - 255).to(tl.float32) * (1.0 / 255.0)
    mixed = signal * clean.to(tl.float32) + sigma * n
    to = image * size + element
    tl.store(x_t + to, mixed.to(x_t.dtype.element_ty), mask=inside)
    tl.store(noise + to, n.to(noise.dtype.element_ty), mask=inside)


@triton.jit
def _normals(block, sample, seed):
    """Four normals of each counter, in the order of the elements."""
    x0, y0, x1, y1 = _philox(block, sample, seed)
    radius, cosine, sine = _radius(x0), _cosine(y0), _sine(y0)
    a, b = radius * cosine, radius * sine
    radius, cosine, sine = _radius(x1), _cosine(y1), _sine(y1)
    c, d = radius * cosine, radius * sine
    return tl.interleave(tl.interleave(a, c), tl.interleave(b, d))


@triton.jit
def _philox(block, sample, seed):
    """Philox4x32-10 of csrc/common/philox.h: four words for each block of one sample."""
    c0, c1 = block.to(tl.uint32), (block >> 32).to(tl.uint32)
    c2 = tl.zeros_like(c0) + sample.to(tl.uint32)
    c3 = tl.zeros_like(c0) + (sample >> 32).to(tl.uint32)
    key0, key1 = seed.to(tl.uint32), (seed >> 32).to(tl.uint32)
    for _ in tl.static_range(10):
        high0, low0 = tl.umulhi(c0, _MULTIPLIER_0), c0 * _MULTIPLIER_0
        high1, low1 = tl.umulhi(c2, _MULTIPLIER_1), c2 * _MULTIPLIER_1
        c0, c1, c2, c3 = high1 ^ c1 ^ key0, low1, high0 ^ c3 ^ key1, low0
        key0 += _WEYL_0
        key1 += _WEYL_1
    return c0, c1, c2, c3


# The polynomials of csrc/cpu/kernels/add_noise.cpp: the GPU's own logarithm is too coarse near 1,
# where the radius is small.


@triton.jit
def _radius(x):
    near_one = x >= 0xC0000000
    x1 = x + 1
    u = (x1 >> 16).to(tl.float32) * 65536.0 + (x1 & 0xFFFF).to(tl.float32)
    u = tl.where(x1 == 0, 1.0, u * 2.3283064365386963e-10)  # 2^-32
    bits = u.to(tl.int32, bitcast=True)
    shifted = (bits - 0x3F3504F3) >> 23
    mantissa = (bits - (shifted << 23)).to(tl.float32, bitcast=True)
    distance = ((x ^ 0xFFFFFFFF) & 0x3FFFFFFF).to(tl.float32) * 2.3283064365386963e-10
    f = tl.where(near_one, -distance, mantissa - 1.0)
    exponent = tl.where(near_one, 0.0, shifted.to(tl.float32))
    p = 7.0376836292e-2
    p = p * f - 1.1514610310e-1
    p = p * f + 1.1676998740e-1
    p = p * f - 1.2420140846e-1
    p = p * f + 1.4249322787e-1
    p = p * f - 1.6668057665e-1
    p = p * f + 2.0000714765e-1
    p = p * f - 2.4999993993e-1
    p = p * f + 3.3333331174e-1
    z = f * f
    tail = p * f * z + exponent * -2.12194440e-4 - 0.5 * z
    return tl.sqrt_rn(-2.0 * (exponent * 0.693359375 + (f + tail)))


@triton.jit
def _quarter(y):
    """The nearest multiple of a right angle to 2 pi (y >> 8) 2^-24, and how far beyond it is."""
    turn = (y >> 8).to(tl.int32)
    quadrant = (turn + (1 << 21)) >> 22
    return quadrant, (turn - (quadrant << 22)).to(tl.float32) * 3.7450704e-7  # 2 pi 2^-24


@triton.jit
def _small_sine(r):
    z = r * r
    return ((-1.9515295891e-4 * z + 8.3321608736e-3) * z - 1.6666654611e-1) * z * r + r


@triton.jit
def _small_cosine(r):
    z = r * r
    c = (2.443315711809948e-5 * z - 1.388731625493765e-3) * z + 4.166664568298827e-2
    return 1.0 - (0.5 * z - c * z * z)  # in this order 1 is rounded once


@triton.jit
def _cosine(y):
    quadrant, r = _quarter(y)
    value = tl.where((quadrant & 1) != 0, _small_sine(r), _small_cosine(r))
    return tl.where(((quadrant + 1) & 2) != 0, -value, value)


@triton.jit
def _sine(y):
    quadrant, r = _quarter(y)
    value = tl.where((quadrant & 1) != 0, _small_cosine(r), _small_sine(r))
    return tl.where((quadrant & 2) != 0, -value, value)
