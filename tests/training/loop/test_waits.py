"""Nothing that a training step or the network does waits for a GPU.

Tensors of the device "meta" have no values: torch refuses to read one, as CUDA graphs do, and
Triton's kernels are not launched. All Python between them runs as it does for a GPU. What comes
from the host must be copied without waiting.
"""

import importlib
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import default_collate

from genselfdiff import machine
from genselfdiff.inference import predictor as predictor_module
from genselfdiff.kernels import backends
from genselfdiff.models.registry import create_model
from genselfdiff.models.segmenter import Segmenter
from genselfdiff.training.loop import step as step_module
from genselfdiff.training.loop.distributed import World
from genselfdiff.training.loop.step import TrainingStep
from genselfdiff.training.runs import prepared

pytest.importorskip("triton", reason="triton is not installed")
META = torch.device("meta")


class Absent(TorchDispatchMode):
    """A GPU that is not here.

    Attributes:
        copied: what came from another device, and whether nothing waited for that.
        cast: what was copied in another dtype.
    """

    def __init__(self) -> None:
        super().__init__()
        self.copied: list[tuple[torch.Tensor, bool]] = []
        self.cast: list[torch.Tensor] = []

    @property
    def waits(self) -> list[str]:
        """What was copied while the host or the GPU waited."""
        return [
            f"{x.dtype} {tuple(x.shape)}" for x, non_blocking in self.copied if not non_blocking
        ]

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = function.__name__.partition(".")[0]
        if function.namespace == "gsd":
            with self:
                return _triton_twin(name)(*args)
        with self:  # "to" is one of those that are made of others
            result = function.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
        if name == "_to_copy":
            if args[0].device != kwargs.get("device", args[0].device):
                self.copied.append((args[0], kwargs.get("non_blocking", False)))
            if args[0].dtype != kwargs.get("dtype", args[0].dtype):
                self.cast.append(args[0])
        if name == "copy_" and args[0].device != args[1].device:
            self.copied.append((args[1], kwargs.get("non_blocking", args[2:] == (True,))))
        return function(*args, **kwargs)


def _triton_twin(name: str) -> Callable[..., Any]:
    operation = name.removesuffix("_backward")
    module = importlib.import_module(f"genselfdiff.kernels.{operation}.triton")
    direction = "forward" if name == operation else "backward"
    return getattr(module, operation if hasattr(module, operation) else direction)


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> Absent:
    monkeypatch.setenv("GSD_KERNELS", "triton")
    monkeypatch.setattr(backends, "triton_devices", {"meta"})
    monkeypatch.setattr(step_module, "_autocast", lambda *_: nullcontext())
    monkeypatch.setattr("triton.runtime.interpreter.InterpretedFunction.run", lambda *_, **__: None)
    adam = importlib.import_module("torch.optim.adam")
    monkeypatch.setattr(adam, "_device_dtype_check_for_fused", lambda *_, **__: None)
    return Absent()


@pytest.fixture(params=["pretrain", "finetune"])
def stage(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{request.param}_config")


def test_a_training_step_waits_for_nothing(stage, absent) -> None:
    with prepared(stage) as (task, on_cpu):
        batch = default_collate([task.dataset[number] for number in range(4)])
        step = TrainingStep(task, on_cpu.network, stage, META, World())
        step(batch, 0)  # tables reach the device
        with absent:
            figures = step(batch, 1)
    assert figures.device == META
    assert absent.waits == []


def test_a_graph_of_the_network_needs_nothing_of_the_host(absent) -> None:
    """What CUDA graphs record is repeated with the same memory: nothing may come from elsewhere."""
    network = create_model("tiny", width=8).to(META, memory_format=torch.channels_last)
    x = torch.zeros(2, 3, 32, 32, device=META).contiguous(memory_format=torch.channels_last)
    t = torch.zeros(2, dtype=torch.int64, device=META)
    with absent:
        y = network(x, t)
        gradients = torch.autograd.grad(y, tuple(network.parameters()), torch.ones_like(y))
    assert len(gradients) == len(list(network.parameters()))
    assert absent.copied == []


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_parameters_are_read_as_they_are(absent, precision) -> None:
    network = create_model("tiny", width=8).to(META, precision, memory_format=torch.channels_last)
    x = torch.zeros(1, 3, 32, 32, dtype=precision, device=META)
    t = torch.zeros(1, dtype=torch.int64, device=META)
    with torch.inference_mode(), absent:
        network(x.contiguous(memory_format=torch.channels_last), t)
    parameters = {id(parameter) for parameter in network.parameters()}
    assert [tuple(x.shape) for x in absent.cast if id(x) in parameters] == []


@pytest.mark.parametrize("side", [32, 21])
def test_prediction_waits_for_nothing(absent, side) -> None:
    segmenter = Segmenter(create_model("tiny", out_channels=3, width=8), "minus_one_one", True)
    segmenter = segmenter.to(META)
    pixels = torch.zeros(2, 3, side, side, dtype=torch.uint8, device=META)
    with torch.inference_mode(), absent:
        mean = predictor_module._mean_view(segmenter, pixels, predictor_module._TURNS)
    assert mean.shape == (2, 2, side, side)
    assert absent.copied == []


def test_a_wait_is_seen(absent) -> None:
    """Each thing that a step must not do is noticed."""
    x = torch.zeros(3, device=META)
    with absent:
        for read in (x.sum().item, x.tolist, lambda: bool(x.sum() > 0), x.cpu):
            with pytest.raises((RuntimeError, NotImplementedError), match="meta tensor"):
                read()
        absent.copied.clear()
        torch.ones(3).to(META, non_blocking=True)
        x.copy_(torch.ones(3), non_blocking=True)
        assert absent.waits == []
        torch.ones(3).to(META)
        x.copy_(torch.ones(3))
    assert absent.waits == ["torch.float32 (3,)"] * 2


def test_what_goes_to_a_gpu_is_page_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *to, **how: (to, how))
    x, gpu = torch.zeros(3), torch.device("cuda:0")
    assert machine.to_device(x, gpu) == ((gpu,), {"non_blocking": True})
    assert pinned == [x]
