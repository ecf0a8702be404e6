"""What is folded and chosen when a network is prepared for TorchScript."""

import pytest
import torch

from genselfdiff.kernels import native
from genselfdiff.models.convolutions import Conv3x3
from genselfdiff.models.export import for_export
from genselfdiff.models.packing import pack_weights
from genselfdiff.models.registry import create_model
from genselfdiff.models.torchscript import script

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.freeze:DeprecationWarning")

OPERATIONS = {"gsd::conv3x3", "gsd::group_norm_silu", "gsd::linear_attention"}


@pytest.fixture
def network():
    """Gains and offsets of the norms are drawn too, or mistakes in them would not show."""
    network = create_model("tiny", out_channels=3)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return network


def at_time_zero(network, x):
    with torch.no_grad():
        return network(x, torch.zeros(len(x), dtype=torch.int64))


def test_the_folded_network_is_the_network_at_time_zero(network):
    network = network.double()
    folded = for_export(network, portable=True)
    x = torch.randn(3, 3, 24, 16, dtype=torch.float64)
    found = folded(x, torch.tensor([7, 0, 500]))
    torch.testing.assert_close(found, at_time_zero(network, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("portable", [False, True])
def test_no_weights_of_the_time_path_are_left(network, portable):
    before = network.state_dict()
    after = for_export(network, portable=portable).state_dict()
    gone = {key for key in before if "time_mlp." in key or ".mlp." in key}
    assert before.keys() - after.keys() == gone != set()
    assert {key.rpartition(".")[2] for key in after.keys() - before.keys()} == {"shift"}


@pytest.mark.parametrize("portable", [False, True])
def test_the_network_stays_as_it_was(network, portable):
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network.train()
    for_export(network, portable=portable)
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("choice", ["auto", "reference"])
@pytest.mark.parametrize("portable", [False, True])
def test_what_is_compiled_depends_on_portable_alone(monkeypatch, network, portable, choice):
    monkeypatch.setenv("GSD_KERNELS", choice)
    needed = set(torch.jit.export_opnames(script(for_export(network, portable=portable))))
    foreign = {name for name in needed if not name.startswith(("aten::", "prim::"))}
    assert foreign == (set() if portable else OPERATIONS)


@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize(
    "view",
    [
        lambda x: x,
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x.repeat_interleave(2, dim=3)[..., ::2],
    ],
    ids=["contiguous", "channels_last", "every other column"],
)
def test_fused_takes_any_layout(network, view, freeze):
    compiled = script(for_export(network, portable=False))
    if freeze:
        compiled = torch.jit.freeze(compiled)
    x = torch.randn(2, 3, 16, 24)
    found = compiled(view(x), torch.zeros(2, dtype=torch.int64))
    torch.testing.assert_close(found, at_time_zero(network, x), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not native.available(), reason="no native kernels installed")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_weights_are_used_and_never_stored(monkeypatch, tmp_path, network, dtype):
    monkeypatch.setenv("GSD_KERNELS", "cpp")
    compiled = script(for_export(network, portable=False))
    compiled.save(tmp_path / "model.ts")
    loaded = torch.jit.load(tmp_path / "model.ts").to(dtype)
    x, t = torch.randn(1, 3, 64, 64, dtype=dtype), torch.zeros(1, dtype=torch.int64)
    before = loaded(x, t)
    pack_weights(loaded)
    packed = [part.packed for part in loaded.modules() if part.original_name == "PackedConv3x3"]
    assert len(packed) == sum(isinstance(m, Conv3x3) for m in network.modules())
    assert all(each.numel() > 0 and each.dtype == torch.float32 for each in packed)
    allowed = {"rtol": 1e-3, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 0.1, "atol": 0.1}
    torch.testing.assert_close(loaded(x, t), before, **allowed)
    for each in packed:
        each.zero_()
    assert (loaded(x, t) - before).abs().max() > 0.3  # nothing but these was used
    monkeypatch.setenv("GSD_KERNELS", "reference")
    pack_weights(loaded)
    assert torch.equal(loaded(x, t), before)


def test_fused_under_autocast(network):
    """Where float32 and bfloat16 meet."""
    fused, plain = (script(for_export(network, portable=portable)) for portable in (False, True))
    x, t = torch.randn(2, 3, 16, 24), torch.zeros(2, dtype=torch.int64)
    exact = at_time_zero(network, x)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        error, allowed = ((model(x, t) - exact).abs().mean() for model in (fused, plain))
    assert error < 2 * allowed
