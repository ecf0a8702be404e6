"""Frozen dataclasses as JSON: written field by field, and read only as they are declared."""

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, ClassVar, Protocol, TypeVar

from genselfdiff.settings import fits


class Record(Protocol):
    """A dataclass of numbers, texts, tuples of them, and other records."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


R = TypeVar("R", bound=Record)


def named(key: str) -> dict[str, str]:
    """Metadata of a field that JSON has under the name ``key``."""
    return {"key": key}


def as_json(record: Record) -> dict[str, Any]:
    """The fields in their order; one that has its default is left out."""
    return {
        _key(part): _plain(value)
        for part in fields(record)
        if (value := getattr(record, part.name)) != part.default
    }


def from_json(kind: type[R], content: object) -> R:
    """The record of ``kind`` that ``content`` tells, whoever has written it.

    Raises:
        ValueError: it has other names, other types, or values that the record refuses; says which.
    """
    parts = {_key(part): part for part in fields(kind)}
    present = content if isinstance(content, dict) else {}
    declared = {
        key: part.type for key, part in parts.items() if part.default is MISSING or key in present
    }
    values = values_of(content, declared)
    return kind(**{parts[key].name: value for key, value in values.items()})


def values_of(content: object, declared: Mapping[str, Any]) -> dict[str, Any]:
    """The values that ``content`` tells, records among them, and lists as tuples.

    Args:
        content: anything that JSON has.
        declared: the types of the values by their names.

    Raises:
        ValueError: as of `from_json`.
    """
    if not isinstance(content, dict) or content.keys() != declared.keys():
        raise ValueError(f"it does not tell {', '.join(declared)}")
    return {name: _value(name, content[name], kind) for name, kind in declared.items()}


def _value(name: str, value: object, declared: Any) -> object:
    if isinstance(declared, type) and is_dataclass(declared):
        return from_json(declared, value)
    read = tuple(value) if isinstance(value, list) else value
    if not fits(read, declared):
        raise ValueError(f"{name} cannot be {value!r:.40}")
    return read


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return as_json(value)
    return list(value) if isinstance(value, tuple) else value


def _key(part: Field[Any]) -> str:
    return str(part.metadata.get("key", part.name))
