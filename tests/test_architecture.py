"""Who imports whom, and how full the rooms are, as docs/architecture.md says."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"genselfdiff": ROOT / "genselfdiff", "gsd": ROOT / "cli" / "gsd"}

MOST_FILES = 16


@cache
def modules() -> dict[str, Path]:
    found = {}
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = (package, *path.relative_to(folder).with_suffix("").parts)
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def statements(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports anywhere in a file, but those that only type checkers see."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for other in node.orelse:
                yield from statements(other)
        else:
            yield from statements(node)


@cache
def imports(module: str) -> frozenset[str]:
    """The modules that one imports: those of ours as such, of others the package."""
    found = set()
    for node in statements(ast.parse(modules()[module].read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.module is not None and not node.level, f"{module}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in modules() else node.module for name in names}
        else:
            found |= {alias.name for alias in node.names}
    return frozenset(
        name if name.split(".")[0] in PACKAGES else name.split(".")[0] for name in found
    )


def table() -> dict[str, list[str]]:
    """The rooms in the documentation, and which others each may import."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = text.partition("| room | imports |\n|---|---|\n")[2].partition("\n\n")[0]
    rooms: dict[str, list[str]] = {}
    for row in rows.splitlines():
        names, imported = row.strip("| ").split(" | ")
        allowed = ["."] if imported == "anything" else re.findall(r"`([a-z/]+)`", imported)
        rooms |= dict.fromkeys(re.findall(r"`([a-z/]+)`", names), allowed)
    return rooms


def room_of(module: str, rooms: dict[str, list[str]]) -> str | None:
    """The innermost room that a module lies in; None: it is one beside the rooms."""
    package, *inside = module.split(".")
    if package == "gsd" or not inside:
        return "cli" if package == "gsd" else package
    places = ("/".join(inside[:end]) for end in range(len(inside), 0, -1))
    return next((place for place in places if place in rooms), None)


def test_rooms_import_what_the_architecture_says() -> None:
    rooms = table()
    inside = [path for path in PACKAGES["genselfdiff"].glob("*/*.py") if path.stem != "__init__"]
    assert {path.parent.name for path in inside} <= rooms.keys()
    wrong = []
    for module in sorted(modules()):
        here = room_of(module, rooms)
        for name in sorted(imports(module) & modules().keys()):
            there = room_of(name, rooms)
            allowed = [] if here is None else rooms[here]
            if there not in (None, here) and not any(
                room == "." or there == room or f"{there}/".startswith(f"{room}/")
                for room in allowed
            ):
                wrong.append(f"{module} imports {name}")
    assert not wrong


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {module: imports(module) & modules().keys() for module in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize("folder", ["benchmarks", "examples"])
def test_scripts_import_what_is_there(folder: str) -> None:
    imported = {
        (str(path.relative_to(ROOT)), node.module, alias.name)
        for path in (ROOT / folder).rglob("*.py")
        for node in statements(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in PACKAGES
        for alias in node.names
    }
    assert imported
    for script, module, name in sorted(imported):
        assert module in modules(), f"{script} imports {module}"
        is_there = f"{module}.{name}" in modules() or hasattr(import_module(module), name)
        assert is_there, f"{script} imports {name} of {module}"


@pytest.mark.parametrize("room", ["slides", "masks", "objects", "viewer"])
def test_these_rooms_know_no_torch(room: str) -> None:
    waiting = [module for module in modules() if f"{module}.".startswith(f"genselfdiff.{room}.")]
    seen: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += imports(module) if module in modules() else ()
    assert "numpy" in seen
    assert "torch" not in seen


def test_no_folder_is_crowded_but_those_that_are_left() -> None:
    crowded = set()
    for top in ("benchmarks", "cli", "csrc", "genselfdiff", "tests"):
        for folder in (ROOT / top, *(ROOT / top).rglob("*/")):
            files = [path for path in folder.iterdir() if path.is_file() and is_source(path)]
            if len(files) > MOST_FILES:
                crowded.add(str(folder.relative_to(ROOT)))
    assert not crowded


def is_source(path: Path) -> bool:
    return not path.name.startswith(".") and path.suffix not in (".pyc", ".so", ".json")
