"""The public names: what docs/python.md, type checkers and ``dir`` say of them is the same."""

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

import genselfdiff
from genselfdiff import kernels

ROOT = Path(__file__).parents[1]


def documented() -> tuple[set[str], set[str], set[str]]:
    """Names of the table, rooms, and kernels."""
    text = (ROOT / "docs" / "python.md").read_text()
    table, _, below = text.partition("Rooms are there as well")
    rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    listed, _, public = below.partition("is public:")
    return (
        set(re.findall(r"`(\w+)`", "".join(rows))),
        set(re.findall(r"`(\w+)`", listed.partition(":")[2].partition(". Of them")[0])),
        set(re.findall(r"`(\w+)`", public.partition(".")[0])),
    )


def test_the_documentation_lists_them() -> None:
    names, rooms, operations = documented()
    assert names | rooms == set(genselfdiff.__all__)
    assert operations == set(kernels.__all__) - {"OPERATIONS"}
    assert set(dir(genselfdiff)) >= names | rooms


def test_the_reference_has_their_docstrings() -> None:
    names, _, operations = documented()
    text = (ROOT / "docs" / "api.md").read_text()
    shown = set(re.findall(r"^::: genselfdiff\.([\w.]+)$", text, re.MULTILINE)) - {"errors"}
    assert shown == names - {"__version__"} | {f"kernels.{name}" for name in operations}


@pytest.mark.parametrize("name", sorted(set(genselfdiff.__all__) - {"__version__"}))
def test_they_are_there_and_type_checkers_see_the_same(name: str) -> None:
    tree = ast.parse(Path(genselfdiff.__file__).read_text())
    seen = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    home = import_module(seen[name])
    assert getattr(genselfdiff, name) is getattr(home, name)
    assert genselfdiff.__getattr__(name) is getattr(home, name)


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'segmnt'"):
        genselfdiff.segmnt  # noqa: B018


def test_models_gives_what_makes_a_network() -> None:
    assert genselfdiff.models.create_model is genselfdiff.create_model
    assert callable(genselfdiff.models.load_initial_weights)
    with pytest.raises(AttributeError, match="has no attribute 'unheard_of'"):
        genselfdiff.models.unheard_of  # noqa: B018
