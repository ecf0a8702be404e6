"""Scripting in a process that has done other things before."""

import pytest
import torch
from torch import nn

from genselfdiff.models import torchscript
from genselfdiff.models.torchscript import script

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")


class Listing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sizes = [2, 3]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.sizes[0]


class Calling(nn.Module):
    """Functions that torch knows in all the ways there are."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_scripting():
            x = torch.ops.aten.relu(x)
        return torch.nn.functional.softmax(torch.add(x, 1), 1)


@pytest.fixture
def table():
    """torch's; what a test leaves of the dead in it goes."""
    table = torch.jit._builtins._get_builtin_table()
    yield table
    for key in table.keys() - torchscript._living_builtins():
        del table[key]


def test_what_is_born_where_a_function_died_is_not_that_function(table):
    module = Listing()
    table[id(module.sizes)] = "aten::gone"  # as a function leaves it
    with pytest.raises(RuntimeError, match="builtin cannot be used as a value"):
        torch.jit.script(module)
    assert script(module)(torch.zeros(1)).item() == 2


def test_a_function_dies_where_its_operator_is_refreshed(table):
    """What ``torch.library`` and ``torch.compile`` do; the reason for ``script``."""
    packet = torch.ops.aten.relu
    old = id(packet._op)
    torch._ops._refresh_packet(packet)
    assert id(packet._op) != old
    assert table[old] == "aten::relu"  # still, should torch mend this, ``script`` can go
    assert old not in torchscript._living_builtins()


def test_builtin_functions_are_known_and_all_stay_in_the_table(table):
    before = dict(table)
    x = torch.randn(2, 3)
    expected = torch.softmax(torch.relu(x) + 1, 1)
    torch.testing.assert_close(script(Calling())(x), expected)
    assert before.items() <= table.items()
