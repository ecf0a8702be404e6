"""Forward diffusion: the generator's known answers, the same noise everywhere, gradients."""

import math
from collections.abc import Callable

import baselines
import pytest
import torch

from genselfdiff.kernels import add_noise
from genselfdiff.kernels.add_noise.reference import philox, standard_normal

from .conftest import on_cpu_alone

ALPHA_BARS = torch.linspace(0.9999, 0.0001, 1000, dtype=torch.float64)
CPU = torch.device("cpu")
SHAPES = [(1, 1), (2, 3, 16, 16), (3, 5, 7), (2, 4097), (1, 3, 37, 41), (2, 1, 65, 64)]


def images(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    levels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return levels if dtype == torch.uint8 else (levels / 127.5 - 1.0).to(dtype)


def steps(batch: int) -> torch.Tensor:
    return torch.arange(batch) * 333 % 1000


def expected(
    x0: torch.Tensor, t: torch.Tensor, seed: int, offset: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The definition, in float64."""
    noise = standard_normal(x0.shape, seed=seed, offset=offset, device=CPU)
    clean = x0.double() / 127.5 - 1.0 if x0.dtype == torch.uint8 else x0.double()
    power = ALPHA_BARS[t].reshape(-1, *[1] * (x0.dim() - 1))
    return power.sqrt() * clean + (1 - power).sqrt() * noise, noise


@pytest.mark.parametrize(
    ("counter", "seed", "words"),
    [
        ([0, 0, 0, 0], 0, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, -1, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            0x299F31D0_A4093822,
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_known_answers_of_random123(
    counter: list[int], seed: int, words: list[int]
) -> None:
    assert philox(torch.tensor(counter), seed).tolist() == words


def test_first_normals_follow_from_the_known_answer(backend: str) -> None:
    words = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    wanted = []
    for x, y in (words[:2], words[2:]):
        radius = math.sqrt(-2 * math.log((x + 1) * 2**-32))
        angle = 2 * math.pi * (y >> 8) * 2**-24
        wanted += [radius * math.cos(angle), radius * math.sin(angle)]
    _, noise = add_noise(torch.zeros(1, 4), steps(1), ALPHA_BARS, seed=0)
    assert noise[0].tolist() == pytest.approx(wanted, abs=1e-6)


def test_baseline_of_the_benchmarks_does_the_same_with_the_same_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x0, t = images((2, 3, 16, 16), torch.float64), steps(2)
    x_t, noise = add_noise(x0, t, ALPHA_BARS, seed=1)
    monkeypatch.setattr(torch, "randn_like", lambda _: noise)
    torch.testing.assert_close(baselines.add_noise(x0, t, ALPHA_BARS)[0], x_t)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("seed", "offset"), [(0, 0), (-7, 3), (2**62 + 5, 2**33 + 1)])
def test_native_kernels_agree_with_float64(
    isa: str, shape: tuple[int, ...], dtype: torch.dtype, seed: int, offset: int
) -> None:
    x0, t = images(shape, dtype), steps(shape[0])
    x_t, noise = add_noise(x0, t, ALPHA_BARS, seed=seed, offset=offset)
    wanted_x_t, wanted_noise = expected(x0, t, seed, offset)
    result = torch.bfloat16 if dtype == torch.bfloat16 else torch.float32
    assert x_t.dtype == noise.dtype == result
    rounding = 2**-8 if result == torch.bfloat16 else 0.0
    torch.testing.assert_close(noise.double(), wanted_noise, atol=1e-6, rtol=rounding)
    torch.testing.assert_close(x_t.double(), wanted_x_t, atol=2e-6, rtol=rounding)


def test_normals_stay_within_a_millionth_of_float64(isa: str) -> None:
    x0 = torch.zeros(4, 2**19)
    _, noise = add_noise(x0, steps(4), ALPHA_BARS, seed=5)
    wanted = standard_normal(x0.shape, seed=5, offset=0, device=CPU)
    assert wanted.abs().max() > 4.5
    assert (noise.double() - wanted).abs().max() < 1e-6


@pytest.mark.parametrize("shape", [(1, 1), (2, 3, 19, 31), (1, 1025)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(("seed", "offset"), [(-7, 3), (2**62 + 5, 2**33 + 1)])
def test_the_triton_kernel_agrees_with_float64(
    interpreted: None, shape: tuple[int, ...], dtype: torch.dtype, seed: int, offset: int
) -> None:
    x0, t = images(shape, dtype), steps(shape[0])
    x_t, noise = add_noise(x0, t, ALPHA_BARS, seed=seed, offset=offset)
    wanted_x_t, wanted_noise = expected(x0, t, seed, offset)
    assert x_t.dtype == noise.dtype == torch.float32
    torch.testing.assert_close(noise.double(), wanted_noise, atol=1e-6, rtol=0.0)
    torch.testing.assert_close(x_t.double(), wanted_x_t, atol=2e-6, rtol=0.0)


def test_every_instruction_set_gives_the_same_bits(
    isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x0 = images((3, 3, 33, 31), torch.uint8)
    mine = add_noise(x0, steps(3), ALPHA_BARS, seed=11)
    monkeypatch.setenv("GSD_CPU_ISA", "generic")
    generic = add_noise(x0, steps(3), ALPHA_BARS, seed=11)
    assert torch.equal(mine[0], generic[0])
    assert torch.equal(mine[1], generic[1])


def test_noise_depends_on_seed_and_global_index_alone(backend: str) -> None:
    x0, t = images((6, 3, 40, 24), torch.float32), steps(6)
    x_t, noise = add_noise(x0, t, ALPHA_BARS, seed=3, offset=10)
    for first, count in [(0, 1), (1, 2), (3, 3)]:
        part = slice(first, first + count)
        part_x_t, part_noise = add_noise(x0[part], t[part], ALPHA_BARS, seed=3, offset=10 + first)
        assert torch.equal(part_x_t, x_t[part])
        assert torch.equal(part_noise, noise[part])
    assert not torch.equal(noise[0], noise[1])
    assert not torch.equal(add_noise(x0, t, ALPHA_BARS, seed=4, offset=10)[1], noise)


@on_cpu_alone
def test_thread_count_does_not_matter(backend: str) -> None:
    x0, t = images((3, 3, 64, 96), torch.float32), steps(3)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(add_noise(x0, t, ALPHA_BARS, seed=3))
    finally:
        torch.set_num_threads(before)
    for x_t, noise in results[1:]:
        assert torch.equal(x_t, results[0][0])
        assert torch.equal(noise, results[0][1])


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x.repeat_interleave(2, dim=3)[..., ::2],
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    ],
    ids=["channels_last", "strided", "transposed"],
)
def test_strides_do_not_matter(backend: str, view: Callable[[torch.Tensor], torch.Tensor]) -> None:
    x0, t = images((2, 3, 10, 14), torch.uint8), steps(2)
    strided = view(x0)
    assert not strided.is_contiguous()
    for one, other in zip(
        add_noise(x0, t, ALPHA_BARS, seed=1),
        add_noise(strided, t, ALPHA_BARS, seed=1),
        strict=True,
    ):
        assert other.is_contiguous()
        assert torch.equal(one, other)


def test_grey_levels_reach_both_ends_exactly(backend: str) -> None:
    x0 = torch.tensor([[0, 255]], dtype=torch.uint8)
    x_t, _ = add_noise(x0, torch.zeros(1, dtype=torch.int64), torch.ones(1).double(), seed=0)
    assert x_t.tolist() == [[-1.0, 1.0]]


@on_cpu_alone
def test_noise_is_standard_normal(backend: str) -> None:
    _, noise = add_noise(torch.zeros(8, 2**17), steps(8), ALPHA_BARS, seed=2024)
    x = noise.double().flatten()
    error = 1 / math.sqrt(len(x))  # one standard error of the mean; each bound below is five
    assert abs(x.mean()) < 5 * error
    assert abs(x.square().mean() - 1) < 5 * math.sqrt(2) * error
    assert abs(x.pow(3).mean()) < 5 * math.sqrt(15) * error
    assert abs(x.pow(4).mean() - 3) < 5 * math.sqrt(96) * error
    for lag in (1, 2, 3, 4, 64, 2**17):
        assert abs((x[lag:] * x[:-lag]).mean()) < 5 * error
        assert abs((x[lag:].square() * x[:-lag].square()).mean() - 1) < 5 * math.sqrt(8) * error
    for bound in (-2.0, -0.5, 0.0, 1.0, 3.0):
        below = 0.5 * (1 + math.erf(bound / math.sqrt(2)))
        assert abs((x < bound).double().mean() - below) < 5 * math.sqrt(below * (1 - below)) * error


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (2, 0), (0,)])
def test_nothing_in_nothing_out(backend: str, shape: tuple[int, ...]) -> None:
    x_t, noise = add_noise(torch.zeros(shape), steps(shape[0]), ALPHA_BARS, seed=0)
    assert x_t.shape == noise.shape == shape


def test_gradient_is_the_signal_scale(backend: str) -> None:
    x0 = images((2, 3, 5, 5), torch.float32).requires_grad_()
    t = steps(2)
    x_t, noise = add_noise(x0, t, ALPHA_BARS, seed=0)
    assert not noise.requires_grad
    weight = images((2, 3, 5, 5), torch.float32) + 2.0
    (x_t * weight).sum().backward()
    wanted = weight * ALPHA_BARS[t].sqrt().float()[:, None, None, None]
    torch.testing.assert_close(x0.grad, wanted)


def test_float64_is_computed_in_float64() -> None:
    x0, t = images((2, 3, 5, 5), torch.float64), steps(2)
    x_t, noise = add_noise(x0, t, ALPHA_BARS, seed=9)
    wanted_x_t, wanted_noise = expected(x0, t, 9, 0)
    assert torch.equal(noise, wanted_noise)
    torch.testing.assert_close(x_t, wanted_x_t, rtol=1e-14, atol=1e-14)
    assert torch.autograd.gradcheck(
        lambda x: add_noise(x, t, ALPHA_BARS, seed=9)[0], x0.requires_grad_()
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"t": torch.tensor([0, 1000])}, r"t\[1\] is 1000, outside the table of 1000"),
        ({"t": torch.tensor([-1, 0])}, r"t\[0\] is -1, outside"),
        ({"t": torch.tensor([0])}, r"t must be int64 of shape \(2,\)"),
        ({"t": torch.tensor([0, 1], dtype=torch.int32)}, "t must be int64"),
        ({"alpha_bars": torch.ones(2, 2).double()}, "alpha_bars must have one dimension"),
        ({"offset": -1}, "offset must not be negative"),
        ({"x0": torch.tensor(1.0)}, "batch dimension"),
    ],
)
def test_bad_arguments_are_named(
    backend: str, arguments: dict[str, torch.Tensor | int], message: str
) -> None:
    good = {"x0": torch.zeros(2, 3), "t": steps(2), "alpha_bars": ALPHA_BARS, "seed": 0}
    with pytest.raises(RuntimeError, match=message):
        add_noise(**{**good, **arguments})


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_the_operation_is_registered_properly(dtype: torch.dtype) -> None:
    x0 = images((2, 3, 4, 5), dtype)
    if dtype != torch.uint8:
        x0.requires_grad_()
    torch.library.opcheck(torch.ops.gsd.add_noise.default, (x0, steps(2), ALPHA_BARS, 3, 4))


def test_compiles_in_one_graph(backend: str) -> None:
    x0, t = images((2, 3, 4, 5), torch.float32), steps(2)

    def noisy(x: torch.Tensor) -> torch.Tensor:
        return add_noise(x, t, ALPHA_BARS, seed=1)[0] * 2.0

    compiled = torch.compile(noisy, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x0), noisy(x0))
