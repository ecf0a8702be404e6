"""A file of ``torch.export`` looked at before torch loads it.

It is meant to be data, but ``torch.export.load`` does more with it: it unpickles tensors and
example inputs without bounds, evaluates sizes as Python, calls whatever function of torch a graph
names, and writes names into code. So nothing of a file reaches torch but

- members that torch writes for a graph, its tensors and our description (``archive.reading``),
- tensors as plain bytes, none of them pickled, none larger than what is stored of it,
- a graph of operators that compute, and no others (``archive.operators``),
- sizes that are sums, products and quotients of whole numbers and of sizes, and names.

What was looked at is written anew, and torch loads that.
"""

import ast
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from torch._export.serde.schema import SCHEMA_VERSION

from genselfdiff.errors import ModelError
from genselfdiff.models.archive.operators import check_operator, words
from genselfdiff.models.archive.reading import (
    METADATA,
    ModelArchive,
    admitted_members,
    opened_archive,
    packed,
    read_member,
)
from genselfdiff.models.model_info import EXTRA_FILE
from genselfdiff.text import shown

_TENSOR = re.compile(r"data/(weights/weight|constants/tensor)_[0-9]+")
_GRAPH = "models/model.json"
_SAMPLES = "data/sample_inputs/model.pt"
_CONFIGS = {
    "data/weights/model_weights_config.json": "data/weights/",
    "data/constants/model_constants_config.json": "data/constants/",
}
_FORMAT = "archive_format"
_READ = re.compile(
    rf"{_TENSOR.pattern}|{re.escape(_GRAPH)}|{re.escape(_SAMPLES)}|{'|'.join(_CONFIGS)}"
    rf"|{_FORMAT}|archive_version|byteorder|\.data/version|{re.escape(METADATA)}"
)
_UNREAD = re.compile(
    r"(.*/)?|\.data/(serialization_id|.*alignment)|\.(format_version|storage_alignment)"
)

_ITEM_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 2, 7: 4, 8: 8, 12: 1, 13: 2}
"""Of torch's numbers for dtypes, but complex and quantised ones."""

_OPERATORS = "torch.ops.aten."

_OF_SIZES = words(
    """
    torch.ops.aten.sym_size.int torch.sym_max torch.sym_min _operator.add _operator.sub
    _operator.mul _operator.floordiv _operator.mod _operator.neg _operator.getitem
    """
)
"""What sizes are computed by, beside operators."""

_VALUES = words(
    """
    as_tensor as_tensors as_optional_tensor as_optional_tensors as_int as_ints as_float as_floats
    as_bool as_bools as_none as_string as_sym_int as_sym_ints as_name as_expr as_scalar_type
    as_memory_format as_layout as_device
    """
)
"""Kinds of arguments. Others hold graphs, objects and operators."""

_ENDS = words("user_input parameter buffer tensor_constant user_output")
"""What goes into a graph and out of it; others change what is outside."""

_FUNCTIONS = words("Symbol Integer Add Mul FloorDiv CeilDiv Mod PythonMod Max Min")
"""Of sizes."""
_LONGEST_SIZE = 2000
"""Characters; those of our networks have 300."""
_SYMBOL = re.compile(r"s[0-9]{1,6}")
_NAME = re.compile(r"[\w.+-]{0,300}", re.ASCII)
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*", re.ASCII)

_TAKEN = [1, {"type": "builtins.tuple", "context": "null", "children_spec": [
    {"type": "builtins.tuple", "context": "null", "children_spec": [
        {"type": None, "context": None, "children_spec": []}]},
    {"type": "builtins.dict", "context": "[]", "children_spec": []}]}]  # fmt: skip
_GIVEN = [1, {"type": None, "context": None, "children_spec": []}]
"""One tensor in, one out, as torch writes it."""


def read_program(file: BinaryIO) -> ModelArchive:
    """Look at all of a file of ``torch.export``.

    Raises:
        ModelError: it is damaged, none of ours, of another version, or does more than compute.
    """
    with opened_archive(file) as archive:
        names = {info.filename.partition("/")[2] for info in archive.infolist()}
        if _FORMAT not in names:
            raise ModelError("no file of torch.export: gsd export writes model files")
        if METADATA not in names:
            raise ModelError(
                f"a file of torch.export without {EXTRA_FILE}: gsd export writes model files"
            )
        members = admitted_members(archive, _READ, _UNREAD, _TENSOR)
        texts = {n: read_member(archive, i) for n, i in members.items() if not _TENSOR.fullmatch(n)}
        if texts[_FORMAT] != b"pt2":
            raise ModelError("no file of torch.export: gsd export writes model files")
        if missing := sorted({_GRAPH, _SAMPLES, *_CONFIGS} - texts.keys()):
            raise ModelError(
                f"has no {missing[0]}: written by a version of torch that is not read; export it"
                " again"
            )
        if texts[_SAMPLES]:
            raise ModelError("brings example inputs, which are pickled: export it with gsd")
        stored = {n: i.file_size for n, i in members.items() if _TENSOR.fullmatch(n)}
        for name, folder in _CONFIGS.items():
            config = _parsed(texts[name], name)
            _check_tensors(config, folder, stored)
            texts[name] = json.dumps(config).encode()
        texts[_GRAPH] = json.dumps(_checked_graph(_parsed(texts[_GRAPH], _GRAPH))).encode()
        return packed(archive, members, texts)


def _parsed(text: str | bytes, name: str) -> Any:
    """JSON with whole numbers as they are: the end of a slice is 2^63 - 1."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"damaged model file: {name} is not JSON") from error


def _check_tensors(config: Any, folder: str, stored: Mapping[str, int]) -> None:
    try:
        for name, told in config["config"].items():
            path, meta = folder + told["path_name"], told["tensor_meta"]
            if told["use_pickle"] is not False or path not in stored:
                raise ModelError(f"keeps {_shown(name)} otherwise than as plain numbers")
            shape, strides = (
                [each["as_int"] for each in meta[key]] for key in ("sizes", "strides")
            )
            offset = meta["storage_offset"]["as_int"]
            numbers = (offset, *shape, *strides)
            if any(type(number) is not int or number < 0 for number in numbers):
                raise _damaged()
            last = offset + sum((n - 1) * by for n, by in zip(shape, strides, strict=True))
            held = stored[path] // _ITEM_BYTES[meta["dtype"]]
            if math.prod(shape) and (math.prod(shape) > held or last >= held):
                raise ModelError("has a tensor larger than what is stored of it")
        for _ in _walked(config):
            pass
    except ModelError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged() from error


def _checked_graph(program: Any) -> Any:
    """The graph without what is told of where it was made."""
    try:
        version = program["schema_version"]["major"]
        if version != SCHEMA_VERSION[0]:
            raise ModelError(
                f"is written in version {version!r:.9} of torch's graphs, but"
                f" {SCHEMA_VERSION[0]} is read: export it again"
            )
        module = program["graph_module"]
        module["metadata"] = {}
        for node in module["graph"]["nodes"]:
            _check_target(node["target"])
            node["metadata"] = {}
        specs = [*module["signature"]["input_specs"], *module["signature"]["output_specs"]]
        if not all(spec.keys() <= _ENDS for spec in specs):
            raise ModelError("has a graph that changes more than what it gives")
        if program["guards_code"] or module["treespec_namedtuple_fields"]:
            raise ModelError("has conditions in code: export it with gsd")
        for entry in module["module_call_graph"]:
            _check_signature(entry["signature"])
        if not all(map(_SYMBOL.fullmatch, program["range_constraints"])):
            raise _damaged()
        for key, value in _walked(program):
            if key == "expr_str":
                _check_size(value)
            elif key not in ("target", "in_spec", "out_spec"):
                _check_plain(key, value)
    except (AttributeError, KeyError, TypeError) as error:
        raise _damaged() from error
    return program


def _check_target(target: str) -> None:
    if target in _OF_SIZES:
        return
    operator, _, overload = target.removeprefix(_OPERATORS).partition(".")
    parts = (operator, overload)
    if not target.startswith(_OPERATORS) or not all(map(_IDENTIFIER.fullmatch, parts)):
        raise ModelError(f"names {_shown(target)}, which does more than compute")
    check_operator(f"aten::{operator}")


def _check_signature(signature: Any) -> None:
    if signature is not None:
        ends = [_parsed(signature[key], key) for key in ("in_spec", "out_spec")]
        if ends != [_TAKEN, _GIVEN]:
            raise ModelError("does not take one tensor of images and give one of probabilities")


def _check_size(text: str) -> None:
    """Raise unless a size is computed by nothing but whole numbers, as torch evaluates it."""
    if len(text) > _LONGEST_SIZE:
        raise _damaged()
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _damaged() from error
    called = {node.func for node in nodes if isinstance(node, ast.Call)}
    for node in nodes:
        match node:
            case ast.Name(id=name) if name in _FUNCTIONS and node in called:
                pass
            case ast.Constant(value=bool()):
                pass
            case ast.Constant(value=int(number)) if number < 2**63:
                pass
            case ast.Constant(value=str(name)) if _SYMBOL.fullmatch(name):
                pass
            case ast.keyword(arg="positive" | "integer" | "nonnegative", value=ast.Constant()):
                pass
            case ast.Expression() | ast.Call() | ast.Load() | ast.UnaryOp() | ast.USub():
                pass
            case _:
                raise ModelError(f"has a size that is more than one: {_shown(text)}")


def _check_plain(key: str, value: object) -> None:
    if not _NAME.fullmatch(key) or (key.startswith("as_") and key not in _VALUES):
        raise ModelError(f"has {_shown(key)} in its graph, which no model of ours has")
    if isinstance(value, str):
        if not _NAME.fullmatch(value) or (key == "name" and not _IDENTIFIER.fullmatch(value)):
            raise ModelError(f"has {_shown(value)} in its graph, which is no name")
    elif isinstance(value, int | float) and not abs(value) <= 2**63:
        raise _damaged()


def _walked(value: Any) -> Iterator[tuple[str, Any]]:
    """Each value in JSON that is no list, with the key that it is under."""
    waiting = [("", value)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.items()
        if isinstance(value, list):
            waiting += [(key, part) for part in value]
        else:
            yield key, value


def _shown(text: object) -> str:
    return repr(shown(str(text)[:80]))


def _damaged() -> ModelError:
    return ModelError("damaged model file: its graph or its tensors")
