"""The values in a model file: a pickle, read without any class or function that it names.

torch's own reader believes what a pickle says of a tensor: one that claims more elements than are
stored would show, or change, other memory of the process.
"""

import io
import math
import pickle
import pickletools
from collections.abc import Iterator, Mapping, Set
from typing import Any

from genselfdiff.errors import ModelError
from genselfdiff.models.archive.code import check_text
from genselfdiff.models.archive.operators import words

_OPCODES = words(
    """
    PROTO GLOBAL BINPUT LONG_BINPUT BINGET LONG_BINGET MARK STOP NONE NEWTRUE NEWFALSE BININT
    BININT1 BININT2 LONG1 BINFLOAT BINUNICODE EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST
    APPEND APPENDS EMPTY_DICT SETITEM SETITEMS NEWOBJ REDUCE BUILD BINPERSID
    """
)
"""All that TorchScript writes."""


class _Bytes(int):
    """The size of an element. A plain number there would be another thing to torch."""


_STORAGES = {
    **dict.fromkeys(("BoolStorage", "ByteStorage", "CharStorage"), _Bytes(1)),
    **dict.fromkeys(("ShortStorage", "HalfStorage", "BFloat16Storage"), _Bytes(2)),
    **dict.fromkeys(("IntStorage", "FloatStorage"), _Bytes(4)),
    **dict.fromkeys(("LongStorage", "DoubleStorage", "ComplexFloatStorage"), _Bytes(8)),
    **{"ComplexDoubleStorage": _Bytes(16)},
}

_LISTS = ("build_intlist", "build_tensorlist", "build_doublelist", "build_boollist")

_DEEPEST = 500
"""Values inside values: readers and destructors call themselves for each."""


def check_values(data: bytes, classes: Set[str], stored: Mapping[str, int]) -> None:
    """Raise unless a pickle holds modules, numbers, texts, and tensors that fit what is stored.

    Args:
        data: the pickle.
        classes: qualified names of the code's classes.
        stored: bytes of each tensor's storage, by its name.

    Raises:
        ModelError: with what is refused.
    """
    try:
        argument: Any
        for code, argument, _ in pickletools.genops(data):
            if code.name not in _OPCODES:
                raise ModelError(
                    f"its values come with {code.name}, which TorchScript does not use"
                )
            if code.name == "LONG_BINPUT" and argument > len(data):
                raise _damaged()
            if code.name == "BINUNICODE":
                check_text(argument)
        value = _Reader(data, classes, stored).load()
    except ModelError:
        raise
    except Exception as error:  # a damaged pickle raises whatever its reader stumbles over
        raise _damaged() from error
    _check_depth(value)


class _Module:
    """In the place of any class of the code."""

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Tensor:
    """In the place of a tensor, which was looked at."""


class _Reader(pickle.Unpickler):
    """Makes nothing but values of this file's classes and Python's plain ones."""

    def __init__(self, data: bytes, classes: Set[str], stored: Mapping[str, int]) -> None:
        super().__init__(io.BytesIO(data), fix_imports=False)
        self._classes = classes
        self._unread = dict(stored)

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name: nothing that does anything."""
        if f"{module}.{name}" in self._classes:
            return type(name, (_Module,), {})
        match module, name:
            case "torch._utils", "_rebuild_tensor_v2":
                return _check_tensor
            case "collections", "OrderedDict":
                return dict
            case "torch", _ if name in _STORAGES:
                return _STORAGES[name]
            case "torch.jit._pickle", "restore_type_tag":
                return lambda value, _: value
            case "torch.jit._pickle", _ if name in _LISTS:
                return list
        raise ModelError(f"its values name {module}.{name}, which is no part of a network")

    def persistent_load(self, reference: Any) -> int:
        """The number of elements of a storage, each of which comes once."""
        kind, size, name, _, elements = reference
        if kind != "storage" or type(size) is not _Bytes or type(elements) is not int:
            raise _damaged()
        if elements * size != self._unread.pop(name, 0):
            raise ModelError(f"the values of a tensor are not those that are stored as {name!r}")
        return elements


def _check_tensor(
    elements: int,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    needs_gradient: bool,
    hooks: dict[str, Any],
) -> _Tensor:
    numbers = (elements, offset, *shape, *strides)
    if any(type(number) is not int or number < 0 for number in numbers) or hooks:
        raise _damaged()
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    count = math.prod(shape)
    if count > elements or (count and last >= elements):
        raise ModelError("has a tensor larger than what is stored of it")
    return _Tensor()


def _check_depth(value: object) -> None:
    """Raise if values lie deeper in each other than in any network, or in themselves."""
    heights: dict[int, int] = {}
    path = [(value, _parts(value))]
    on_path = {id(value)}
    while path:
        above, parts = path[-1]
        for part in parts:
            if id(part) in on_path or len(path) + heights.get(id(part), 0) > _DEEPEST:
                raise ModelError("its values lie too deep in each other")
            if id(part) not in heights:
                path.append((part, _parts(part)))
                on_path.add(id(part))
                break
        else:
            path.pop()
            on_path.remove(id(above))
            heights[id(above)] = 1 + max((heights[id(part)] for part in _parts(above)), default=0)


def _parts(value: object) -> Iterator[object]:
    """The containers in a value."""
    if isinstance(value, _Module):
        value = (value.state,) if hasattr(value, "state") else ()
    if isinstance(value, dict):
        value = (*value, *value.values())
    if isinstance(value, list | tuple):
        return (part for part in value if isinstance(part, _Module | dict | list | tuple))
    return iter(())


def _damaged() -> ModelError:
    return ModelError("its values are damaged")
