import json
import zlib

import numpy as np
import pytest
import torch

from genselfdiff.choices import ARCHITECTURES
from genselfdiff.errors import InputError
from genselfdiff.models.registry import architecture, create_model
from genselfdiff.models.torchscript import script


@pytest.fixture(scope="module")
def published_keys(request):
    path = request.config.rootpath / "tests" / "reference" / "state_dict_keys.json"
    return json.loads(path.read_text())


def reference_weights(state):
    """The weights behind the golden "eps": each entry drawn from a generator seeded by its key."""
    weights = {}
    for key, value in state.items():
        generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
        weight = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        weight *= 0.05 if value.ndim >= 2 else 0.1
        if key.endswith(("norm.weight", "to_out.1.weight")):
            weight += 1.0
        weights[key] = weight
    return weights


@pytest.mark.parametrize(("stage", "channels"), [("diffusion", 3), ("seg", 4)])
def test_state_dict_has_the_published_keys_and_shapes(published_keys, stage, channels):
    state = create_model("paper", out_channels=channels).state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == published_keys[stage]


def test_predicted_noise_is_that_of_the_authors_code(golden):
    model = create_model("paper").double()
    model.load_state_dict(reference_weights(model.state_dict()))
    with torch.no_grad():
        eps = model(torch.from_numpy(golden["x"]), torch.from_numpy(golden["t"])).numpy()
    assert np.abs(eps - golden["eps"]).max() <= 1e-9 * np.abs(golden["eps"]).max()


def test_number_of_parameters_is_the_published_one():
    assert sum(p.numel() for p in create_model("paper").parameters()) == 31_267_083


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("size", [(1, 1), (3, 5)])
def test_every_architecture_keeps_the_size(name, size):
    model = create_model(name, out_channels=5).eval()
    height, width = (side * model.size_multiple for side in size)
    assert model.size_multiple == architecture(name).size_multiple
    with torch.no_grad():
        y = model(torch.randn(1, 3, height, width), torch.tensor([999]))
    assert y.shape == (1, 5, height, width)


@pytest.mark.parametrize("name", ["fast", "fastest"])
def test_the_head_of_a_strided_network_gives_each_pixel_of_a_place(name):
    model = create_model(name, out_channels=2).eval()
    head = model.net.final_conv[1]
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.arange(8.0))
        y = model(torch.randn(1, 3, 32, 64), torch.tensor([0]))
    expected = torch.arange(8.0).reshape(2, 2, 2).repeat(1, 16, 32)
    assert torch.equal(y[0], expected)


def test_scripted_network_gives_the_same_numbers(monkeypatch):
    monkeypatch.setenv("GSD_KERNELS", "reference")  # what it compiles to
    model = create_model("tiny", out_channels=2).eval()
    scripted = script(model)
    x, t = torch.randn(2, 3, 32, 24), torch.tensor([0, 500])
    with torch.no_grad():
        torch.testing.assert_close(scripted(x, t), model(x, t), rtol=0, atol=1e-6)


def test_memory_format_does_not_change_the_numbers():
    model = create_model("tiny").double().eval()
    x, t = torch.randn(2, 3, 32, 24, dtype=torch.float64), torch.tensor([3, 500])
    with torch.no_grad():
        expected = model(x, t)
        model = model.to(memory_format=torch.channels_last)
        y = model(x.contiguous(memory_format=torch.channels_last), t)
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-12)


def test_time_changes_the_output():
    model = create_model("tiny").eval()
    x = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        assert not torch.allclose(model(x, torch.tensor([0])), model(x, torch.tensor([900])))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"name": "huge"}, "there are: paper, small, fast, fastest, tiny"),
        ({"name": "small", "width": 12}, "multiple of 8"),
        ({"name": "small", "multipliers": (1, 2)}, "four positive numbers"),
        ({"name": "small", "out_channels": 0}, "at least 1"),
    ],
)
def test_impossible_networks_are_refused(arguments, told):
    with pytest.raises(InputError, match=told):
        create_model(**arguments)
