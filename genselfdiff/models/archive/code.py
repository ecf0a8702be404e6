"""The code in a model file, looked at as text before torch compiles it.

TorchScript writes code that Python can parse as well: classes of modules, their methods and
functions, in which every operator stands as ``torch.NAME`` or ``ops.NAMESPACE.NAME``.
"""

import ast
import re
from collections.abc import Mapping

import torch

from genselfdiff.errors import ModelError
from genselfdiff.models.archive.operators import check_attribute, check_operator, words
from genselfdiff.text import shown

_SYNTAX = frozenset(
    {
        *(ast.Module, ast.ClassDef, ast.FunctionDef, ast.arguments, ast.arg, ast.Return, ast.Pass),
        *(ast.Assign, ast.AnnAssign, ast.Expr, ast.If, ast.For, ast.While, ast.Call, ast.keyword),
        *(ast.Attribute, ast.Subscript, ast.Name, ast.Constant, ast.UnaryOp, ast.USub),
        *(ast.Tuple, ast.List, ast.Dict, ast.Load, ast.Store),
    }
)
"""All that TorchScript writes, but what enters contexts or waits for others."""

_BASES = ("Module", "NamedTuple")
"""Classes of other kinds have methods that run where nobody calls them."""

_SPECIAL_METHODS = ("__len__", "__contains__")
"""Of lists and dictionaries of modules. ``__setstate__`` would run while a file is loaded."""

_NAMESPACES = ("aten", "prim", "gsd")

_ROOTS = frozenset({"torch", "ops", "CONSTANTS", "__torch__"})
"""Names that only stand before a dot."""

_KNOWN = words(
    """
    Tensor int float bool str complex number NoneType Device Optional List Tuple Dict Union Final
    Module NamedTuple Any range annotate unchecked_cast uninitialized inf nan infj nanj
    __annotations__
    """
)
"""Types, and what TorchScript's language has; any other name is made by the code itself."""

_ACTING = frozenset({"print", "fork", "awaitable", "getattr"})
"""Names of the language that no variable may bear; ``getattr`` may be called."""

_PLAIN = re.compile(r"[\x20-\x7e\n]*")
"""Of other characters two parsers could make different things."""


def check_code(files: Mapping[str, str]) -> set[str]:
    """Raise unless code only computes; tell the qualified names of its classes.

    Args:
        files: name to content, such as "__torch__/torch/nn/modules/conv.py".

    Raises:
        ModelError: with what is refused.
    """
    return {name for path, text in files.items() for name in _check_file(path, text)}


def check_compiled(module: torch.jit.ScriptModule) -> list[str]:
    """Raise unless what torch made of the code only computes; tell the operators it calls.

    Raises:
        ModelError: with what is refused.
    """
    names: list[str] = torch.jit.export_opnames(module)  # type: ignore[no-untyped-call]
    for name in names:
        check_operator(name.partition(".")[0])
    return names


def check_text(text: str) -> None:
    """Raise ModelError if ``text`` would steer a terminal: warnings and errors of a model show it.

    Args:
        text: its bytes as characters, which is how TorchScript writes what is not ASCII.
    """
    try:
        text = text.encode("latin-1").decode(errors="surrogateescape")
    except UnicodeEncodeError as error:
        raise _foreign() from error
    if shown(text, keep="\n\t") != text:
        raise ModelError(f"has control characters in a text: {shown(text[:50])}")


def _check_file(path: str, text: str) -> list[str]:
    if not _PLAIN.fullmatch(text):
        raise _foreign()
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _foreign() from error
    nodes = list(ast.walk(tree))
    own, placed = set(_KNOWN), set()
    for node in nodes:
        match node:
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()):
                own.add(name)
            case ast.Attribute(value=ast.Name(id=name) as root) if name in _ROOTS:
                placed.add(root)
            case ast.Call(func=ast.Name(id="getattr") as function):
                placed.add(function)
    own -= _ROOTS | _ACTING
    for node in nodes:
        if type(node) not in _SYNTAX:
            raise ModelError(f"has {type(node).__name__} in its code, which does more than compute")
        if isinstance(node, ast.Name) and node.id not in own and node not in placed:
            raise ModelError(f"names {node.id}, which does more than compute")
        _check_node(node)
    module = path.removesuffix(".py").replace("/", ".")
    return [f"{module}.{node.name}" for node in tree.body if isinstance(node, ast.ClassDef)]


def _check_node(node: ast.AST) -> None:
    match node:
        case ast.ClassDef(bases=[ast.Name(id=base)], keywords=[], decorator_list=[]) if (
            base in _BASES
        ):
            pass
        case ast.ClassDef(name=name):
            raise ModelError(f"its class {name} is neither a module nor a named tuple")
        case ast.FunctionDef(name=name):
            if name.endswith("__") and name not in _SPECIAL_METHODS:
                raise ModelError(f"brings {name}, which would run where nobody calls it")
            check_attribute(name)
        case ast.Attribute(value=ast.Name(id="torch"), attr=name):
            check_operator(f"aten::{name}")
        case ast.Attribute(value=ast.Name(id="ops"), attr=namespace):
            if namespace not in _NAMESPACES:
                raise ModelError(f"names operators of {namespace}, which do more than compute")
        case ast.Attribute(value=ast.Attribute(value=ast.Name(id="ops"), attr=space), attr=name):
            check_operator(f"{space}::{name}")
        case ast.Attribute(
            value=ast.Attribute(value=ast.Name(id="__torch__"), attr="torch"), attr="classes"
        ):
            raise ModelError("has parts in torch's own classes, as quantised models have")
        case ast.Attribute(attr=name):
            check_attribute(name)
        case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value=str(name))]):
            check_attribute(name)  # written so if it is no identifier
        case ast.Call(func=ast.Name(id="getattr")):
            raise _foreign()
        case ast.Constant(value=str(text)):
            check_text(text)
        case ast.Constant(value=bool() | int() | float() | complex() | None):
            pass
        case ast.Constant():
            raise _foreign()


def _foreign() -> ModelError:
    return ModelError("has code that TorchScript does not write")
