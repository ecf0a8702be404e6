"""The choice between implementations on a GPU, and what every one of them is asked to take."""

import importlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from genselfdiff.errors import GsdError
from genselfdiff.kernels import OPERATIONS, backends, conv3x3, convolution_rules
from genselfdiff.kernels.backends import Operation
from genselfdiff.kernels.conv4x4.op import conv4x4
from genselfdiff.kernels.linear_attention import op as linear_attention
from genselfdiff.kernels.linear_attention import triton as linear_attention_triton

X = torch.zeros(1, 16, 2, 2)
C = torch.ones(16)
QKV, OUT = torch.ones(384, 16, 1, 1), torch.ones(16, 128, 1, 1)
CALLS: dict[str, list[Any]] = {
    "add_noise": [X, torch.zeros(1, dtype=torch.int64), torch.ones(3).double(), 1, 0],
    "group_norm_silu": [X, C, C, 4, torch.zeros(1, 16), X, 1e-5],
    "linear_attention": [X, C, C, QKV, OUT, C, C, C, 4, 1e-5],
    "multi_loss": [X, torch.zeros(1, 2, 2, dtype=torch.int64), C, False, 2.0, None],
    "p2_loss": [X, X, torch.zeros(1, dtype=torch.int64), torch.ones(3).double(), True],
}
TABLES = {"alpha_bars", "weights", "class_weights"}


def tensors_of(name: str) -> list[tuple[int, str]]:
    """Index and name of each tensor among the arguments, after the first."""
    schema = getattr(torch.ops.gsd, name).default._schema
    named = enumerate(argument.name for argument in schema.arguments)
    return [(i, n) for i, n in named if i and isinstance(CALLS[name][i], torch.Tensor)]


def plain_of(name: str) -> Callable[..., Any]:
    module = importlib.import_module(f"genselfdiff.kernels.{name}.reference")
    return getattr(module, "forward" if hasattr(module, "forward") else name)


def operation_of(name: str) -> Operation:
    return next(one for one in OPERATIONS if one.name == name)


ELSEWHERE = [(name, i, argument) for name in CALLS for i, argument in tensors_of(name)]


@pytest.mark.parametrize(("name", "index", "argument"), ELSEWHERE)
def test_triton_names_the_argument_that_is_elsewhere(name: str, index: int, argument: str) -> None:
    on_gpu = backends._triton_twin(operation_of(name), plain_of(name))
    arguments = list(CALLS[name])
    arguments[index] = arguments[index].to("meta")
    with pytest.raises(RuntimeError, match=f"{name}: {argument} is on meta and not on cpu"):
        on_gpu(*arguments)


@pytest.mark.parametrize("name", [name for name, _, argument in ELSEWHERE if argument in TABLES])
def test_tables_may_stay_on_the_cpu(name: str) -> None:
    names = [a.name for a in getattr(torch.ops.gsd, name).default._schema.arguments]
    moved = {
        n: a.to("meta") if isinstance(a, torch.Tensor) and n not in TABLES else a
        for n, a in zip(names, CALLS[name], strict=True)
    }
    backends.check_devices(name, moved, operation_of(name).tables)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, list[Any]]]:
    """Two GPUs, an old one, which is the current one, and a new; what is asked of them."""
    asked: dict[int, list[Any]] = {0: [], 1: []}

    def capability(index: int) -> tuple[int, int]:
        asked[index].append("capability")
        return ((7, 5), (9, 0))[index]

    def gpu_obstacle(index: int) -> str:
        asked[index].append("kernels")
        return ("old", "")[index]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", capability)
    monkeypatch.setattr(torch.ops.gsd, "gpu_obstacle", gpu_obstacle, raising=False)
    monkeypatch.setattr(backends, "_triton_installed", lambda: True)
    for name in ("linear_attention", "group_norm_silu"):
        taken_over = lambda name=name: asked.setdefault(-1, []).append(name)  # noqa: E731
        monkeypatch.setitem(backends.launched_from_cpp, name, taken_over)
    monkeypatch.delenv("GSD_KERNELS", raising=False)
    clear_caches()
    yield asked
    clear_caches()


def clear_caches() -> None:
    backends._gpu_obstacle.cache_clear()
    backends.compiled_obstacle.cache_clear()
    backends.decided.cache_clear()


@pytest.mark.parametrize("name", ["linear_attention", "add_noise"])
def test_each_gpu_is_asked_once_what_it_can(
    gpus: dict[int, list[Any]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for _ in range(3):
        assert operation_of(name).backend(torch.device("cuda"), torch.float32) == "reference"
        assert operation_of(name).backend(torch.device("cuda:0"), torch.float32) == "reference"
        assert operation_of(name).backend(torch.device("cuda:1"), torch.float32) == "triton"
    once = ["capability", "kernels"] if name == "linear_attention" else ["capability"]
    assert gpus == {0: ["capability"], 1: once}
    monkeypatch.setenv("GSD_KERNELS", "triton")
    with pytest.raises(GsdError, match=r"need a GPU of compute capability 8\.0"):
        operation_of(name).backend(torch.device("cuda:0"), torch.float32)


def test_what_a_driver_refuses_is_done_otherwise_and_said_once(
    gpus: dict[int, list[Any]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reason = "the driver, of CUDA 12.4, refuses them (it is too old): update it"
    monkeypatch.setattr(torch.ops.gsd, "gpu_obstacle", lambda _: reason, raising=False)
    caplog.set_level(logging.WARNING)
    attention, norm = operation_of("linear_attention"), operation_of("group_norm_silu")
    for operation in (attention, norm, norm):
        assert operation.backend(torch.device("cuda:1"), torch.float32) == "triton"
    assert set(gpus[-1]) == {"linear_attention", "group_norm_silu"}
    monkeypatch.setattr(backends, "_triton_installed", lambda: False)
    backends.decided.cache_clear()
    assert norm.backend(torch.device("cuda:1"), torch.float32) == "reference"
    (message,) = caplog.messages
    assert message == f"cuda:1 runs without the GPU kernels that came with gsd: {reason}"


def test_an_exported_model_runs_on_a_gpu_that_the_kernels_do_not_serve(
    gpus: dict[int, list[Any]],
) -> None:
    operation_of("group_norm_silu").prepare_scripted(torch.device("cuda:1"))
    assert -1 not in gpus
    operation_of("group_norm_silu").prepare_scripted(torch.device("cuda:0"))
    assert gpus[-1] == ["group_norm_silu"]


def test_triton_takes_the_heads_that_were_not_compiled(gpus: dict[int, list[Any]]) -> None:
    assert linear_attention._obstacle("cuda", 4, 128) == ""
    assert -1 not in gpus
    assert linear_attention._obstacle("cuda", 8, 128) == ""
    assert gpus[-1] == ["linear_attention"]
    assert "heads of 16, 32, 64 or 128" in linear_attention._obstacle("cuda", 3, 100)


def test_heads_that_were_not_compiled_want_triton(
    gpus: dict[int, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "_triton_installed", lambda: False)
    assert linear_attention._obstacle("cuda", 4, 128) == ""
    assert "pip install torch triton" in linear_attention._obstacle("cuda", 8, 128)
    assert -1 not in gpus


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(
    ("heads", "obstacle", "triton", "served"),
    [
        (4, "", True, "compiled"),
        (8, "", True, "triton"),
        (4, "refused", True, "triton"),
        (4, "refused", False, "plain"),
        (8, "", False, "plain"),
    ],
)
def test_each_call_is_served_by_what_can(
    monkeypatch: pytest.MonkeyPatch, heads: int, obstacle: str, triton: bool, served: str
) -> None:
    if "linear_attention" not in backends.launched_from_cpp:
        pytest.skip("no GPU kernels are compiled in")
    calls = []

    class Compiled:
        def call_boxed(self, _: object, *arguments: Any) -> Any:
            calls.append("compiled")
            return plain(*arguments)

    def twin(*arguments: Any) -> Any:
        calls.append("triton")
        return plain(*arguments)

    plain, get_kernel = plain_of("linear_attention"), torch.library.get_kernel
    monkeypatch.setattr(linear_attention_triton, "forward", twin)
    monkeypatch.setattr(torch.library, "get_kernel", lambda *_: Compiled())
    monkeypatch.setattr(torch.cuda, "current_device", lambda: None)  # where the tensors are
    monkeypatch.setattr(backends, "compiled_obstacle", lambda _: obstacle)
    monkeypatch.setattr(backends, "_triton_installed", lambda: triton)
    with torch.library._scoped_library("gsd", "FRAGMENT") as library:
        monkeypatch.setattr(backends, "_library", library)
        operation = operation_of("linear_attention")
        backends._taking_over(operation, plain, linear_attention._is_compiled)()
        x = torch.randn(1, 16, 3, 5)
        arguments = [x, *CALLS["linear_attention"][1:8], heads, 1e-5]
        keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
        found = get_kernel("gsd::linear_attention", "CUDA").call_boxed(keys, *arguments)
    assert calls == ([served] if served != "plain" else [])
    torch.testing.assert_close(found[0], plain(*arguments)[0])


def test_what_runs_is_decided_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_for = []
    monkeypatch.setattr(backends, "_triton_installed", lambda: looked_for.append(1) or True)
    operation = next(one for one in OPERATIONS if one.triton)
    for _ in range(3):
        assert operation.backend(torch.device("cuda", 0), torch.float32) == "triton"
    assert looked_for == [1]
    monkeypatch.setenv("GSD_KERNELS", "reference")  # the environment is asked each time
    assert operation.backend(torch.device("cuda", 0), torch.float32) == "reference"


def test_convolutions_that_are_torchs_ask_for_no_instruction_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(convolution_rules, "_isa", lambda: pytest.fail("asked"))
    x = X.to("meta", memory_format=torch.channels_last)
    weight, wide = (torch.zeros(16, 16, n, n, device="meta", requires_grad=True) for n in (3, 4))
    assert conv3x3(x, weight).shape == (1, 16, 2, 2)
    assert conv4x4(x, wide, None, False).shape == (1, 16, 1, 1)
