"""Forward diffusion with counter-based noise in plain torch: the truth for the fast ones."""

import math

import torch

from genselfdiff.kernels.checks import check_times, exact_dtype, look_up

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox(counter: torch.Tensor, seed: int) -> torch.Tensor:
    """Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11).

    Args:
        counter: int64 (..., 4), each entry a 32-bit word, the least significant first.
        seed: the key, low word first; negative numbers stand for their 64 bits.

    Returns:
        int64 (..., 4): four random 32-bit words for each counter.
    """
    c0, c1, c2, c3 = counter.unbind(-1)
    key0, key1 = seed & _WORD, (seed >> 32) & _WORD
    for _ in range(10):
        # The products wrap at 64 bits, which leaves the bits that are taken from them as they are.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c2 = ((p1 >> 32) & _WORD) ^ c1 ^ key0, ((p0 >> 32) & _WORD) ^ c3 ^ key1
        c1, c3 = p1 & _WORD, p0 & _WORD
        key0, key1 = (key0 + _WEYL[0]) & _WORD, (key1 + _WEYL[1]) & _WORD
    return torch.stack((c0, c1, c2, c3), dim=-1)


def standard_normal(
    shape: torch.Size, *, seed: int, offset: int, device: torch.device
) -> torch.Tensor:
    """Standard normal noise, each sample a pure function of the seed and its global index.

    The counter's low half is the element's index within the sample divided by 4, its high half the
    sample's index. Box and Muller turn the four words into four normals, the first and the third
    word giving the radius, the second and the fourth the angle.

    Args:
        shape: (N, ...).
        seed: 64 bits.
        offset: global index of the first sample.
        device: where to compute.

    Returns:
        A contiguous tensor of that shape, float64 (float32 on mps).
    """
    batch, size = shape[0], math.prod(shape[1:])
    dtype = exact_dtype(device)
    block = torch.arange(-(-size // 4), device=device).expand(batch, -1)
    sample = torch.arange(offset, offset + batch, device=device)[:, None].expand_as(block)
    counter = torch.stack((block & _WORD, block >> 32, sample & _WORD, sample >> 32), dim=-1)
    words = philox(counter, seed)
    radius = (-2.0 * ((words[..., 0::2] + 1).to(dtype) * 2.0**-32).log()).sqrt()
    angle = (words[..., 1::2] >> 8).to(dtype) * (2.0 * math.pi * 2.0**-24)
    normals = torch.stack((radius * angle.cos(), radius * angle.sin()), dim=-1)
    return normals.flatten(1)[:, :size].reshape(shape).contiguous()


def add_noise(
    x0: torch.Tensor, t: torch.Tensor, alpha_bars: torch.Tensor, seed: int, offset: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain-torch ``gsd::add_noise``; see :func:`genselfdiff.kernels.add_noise`."""
    check(x0, offset)
    check_times("add_noise", t, x0.shape[0], alpha_bars, "alpha_bars")
    noise = standard_normal(x0.shape, seed=seed, offset=offset, device=x0.device)
    clean = x0.to(noise.dtype)
    if x0.dtype == torch.uint8:
        clean = clean / 127.5 - 1.0
    power = look_up(alpha_bars, t, noise)
    x_t = power.sqrt() * clean + (1.0 - power).sqrt() * noise
    dtype = result_dtype(x0)
    return x_t.to(dtype).contiguous(), noise.to(dtype)


def check(x0: torch.Tensor, offset: int) -> None:
    """Raise RuntimeError for an ``x0`` or ``offset`` that no implementation takes."""
    if x0.dim() < 1:
        raise RuntimeError("add_noise: x0 must have a batch dimension")
    if x0.dtype != torch.uint8 and not x0.dtype.is_floating_point:
        raise RuntimeError(f"add_noise: x0 must be uint8 or floating point, not {x0.dtype}")
    if offset < 0:
        raise RuntimeError("add_noise: offset must not be negative")


def result_dtype(x0: torch.Tensor) -> torch.dtype:
    """Of both results: float32 for grey levels, else that of ``x0``."""
    return torch.float32 if x0.dtype == torch.uint8 else x0.dtype
