"""The order of work on a GPU that is not here: what a stream reads must be written before."""

import copy
import dataclasses
import threading
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import nn

from genselfdiff.inference import predictor as predictor_module
from genselfdiff.inference.predictor import Predictor
from genselfdiff.models.model_file import load_model


class Gpu:
    """Streams as CUDA has them: work of one is in order, of two only where one waits."""

    def __init__(self) -> None:
        self.thread = threading.local()
        self.default = Stream(self)
        self.done: set[object] = set()  # what the host has waited for
        self.streams = [self.default]

    def current(self, device=None) -> "Stream":
        return getattr(self.thread, "stream", self.default)

    @contextmanager
    def entered(self, stream):
        before, self.thread.stream = self.current(), stream
        yield
        self.thread.stream = before

    def stream(self, device=None) -> "Stream":
        self.streams.append(Stream(self))
        return self.streams[-1]


class Stream:
    """Work that was begun, and that comes before whatever begins here next."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.before: set[object] = set()

    def begin(self, work: object, *, after: object = None) -> None:
        assert after is None or after in self.before | self.gpu.done, f"{work} overtakes {after}"
        self.before.add(work)

    def synchronize(self) -> None:
        self.gpu.done |= self.before

    def wait_stream(self, other: "Stream") -> None:
        self.before |= other.before


class Weights(nn.Module):
    """A model whose weights are ready when the work that makes them is done."""

    def __init__(self, gpu: Gpu) -> None:
        super().__init__()
        self.gpu = gpu
        self.made: object = None

    def __deepcopy__(self, memo: object) -> "Weights":
        return copy.copy(self)

    def to(self, *arguments: object, **options: object) -> "Weights":
        after, self.made = self.made, f"weights {object()}"
        self.gpu.current().begin(self.made, after=after)
        return self

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        self.gpu.current().begin("batch", after=self.made)
        return torch.full((len(pixels), 2, *pixels.shape[2:]), 0.5)


@pytest.fixture
def gpu(monkeypatch) -> Gpu:
    gpu = Gpu()
    monkeypatch.setattr(torch.cuda, "Stream", gpu.stream)
    monkeypatch.setattr(torch.cuda, "stream", gpu.entered)
    monkeypatch.setattr(torch.cuda, "current_stream", gpu.current)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(predictor_module, "to_device", lambda tensor, _: tensor)
    return gpu


@pytest.mark.parametrize("obeyed", [False, True], ids=["from the start", "for a later slide"])
def test_workers_read_weights_that_are_ready(darkness_model, gpu, obeyed) -> None:
    loaded = load_model(darkness_model, "cpu")
    loaded = dataclasses.replace(loaded, device=torch.device("cuda:0"), module=Weights(gpu))
    predictor = Predictor(loaded, "float32" if obeyed else "bfloat16")
    if obeyed:
        predictor.obey("bfloat16", 1)
    batch = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    with predictor.predict_ahead(iter([batch] * 4)) as predicted:
        assert len(list(predicted)) == 4
    assert len(gpu.streams) > 1
    assert "batch" not in gpu.default.before
    assert "batch" in gpu.done, "a result left before its stream had ended it"
