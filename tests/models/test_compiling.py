"""torch.compile sees both stages and prediction as one graph each, with our operations in it."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

from genselfdiff.diffusion import NoisePrediction, NoiseSchedule
from genselfdiff.kernels import backends, native
from genselfdiff.losses import MultiLoss, P2Loss
from genselfdiff.models.registry import create_model
from genselfdiff.models.segmenter import Segmenter

OURS = {"group_norm_silu": 34, "linear_attention": 7}
"""How often the network calls each operation."""


@pytest.fixture(params=["cpu", "meta"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """The CPU; and tensors without values in the place of a GPU's, which none needs to have."""
    if request.param == "meta":
        pytest.importorskip("triton", reason="triton is not installed")
        monkeypatch.setenv("GSD_KERNELS", "triton")
        monkeypatch.setattr(backends, "triton_devices", {"meta"})
    elif not native.available():
        pytest.skip("no native kernels installed")
    backends.decided.cache_clear()
    return torch.device(request.param)


def operations(call: Callable[..., Any], *arguments: Any) -> Counter[str]:
    """Our operations in the one graph of ``call``."""
    graphs = []

    def keep(graph: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    torch.compile(call, backend=keep, fullgraph=True)(*arguments)
    (graph,) = graphs
    names = (str(node.target).split(".") for node in graph.graph.nodes)
    return Counter(name[1] for name in names if name[0] == "gsd")


def test_stage_1(device: torch.device) -> None:
    network = create_model("tiny", width=8).to(device, memory_format=torch.channels_last)
    schedule = NoiseSchedule.create()
    objective = NoisePrediction(schedule, P2Loss(schedule), 0)
    tiles = torch.zeros(2, 3, 32, 32, dtype=torch.uint8, device=device)
    t = torch.zeros(2, dtype=torch.int64, device=device)
    found = operations(lambda tiles, t: objective(network, tiles, t, 0), tiles, t)
    found.pop("conv3x3", None)
    assert found == OURS | {"add_noise": 1, "p2_loss": 1}


def test_stage_2(device: torch.device) -> None:
    network = create_model("tiny", out_channels=3, width=8)
    network = network.to(device, memory_format=torch.channels_last)
    loss = MultiLoss()
    x = torch.zeros(2, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(2, 32, 32, dtype=torch.int64, device=device)
    t = torch.zeros(2, dtype=torch.int64, device=device)
    found = operations(lambda x, t, labels: loss(network(x, t), labels), x, t, labels)
    found.pop("conv3x3", None)
    assert found == OURS | {"multi_loss": 1}


def test_prediction(device: torch.device) -> None:
    network = create_model("tiny", out_channels=3, width=8)
    segmenter = Segmenter(network, "minus_one_one").to(device, memory_format=torch.channels_last)
    tiles = torch.zeros(2, 3, 30, 32, dtype=torch.uint8, device=device)
    tiles = tiles.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        found = operations(segmenter.eval(), tiles)
    found.pop("conv3x3", None)
    assert found == OURS
