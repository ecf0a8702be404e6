"""Whether a value is of the type that a setting is declared with, wherever it has come from."""

import math
import types
from typing import Any, Union, get_args, get_origin

from genselfdiff.errors import InputError

_LARGEST = 2**63 - 2
"""Whole numbers are 64 bits wide in torch; a seed has one added to it."""

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def require_type(name: str, value: Any, declared: Any) -> None:
    """Raise InputError unless ``value`` is what ``declared`` says, and every number in it finite.

    ``declared`` is one that `fits` knows; whole numbers have 64 bits.
    """
    if not fits(value, declared):
        kinds = _members(declared)
        wanted = _WORDS.get(kinds[0], "a table" if get_origin(kinds[0]) is dict else "a list")
        raise InputError(f"{name} must be {wanted}, not {type(value).__name__}")
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, int) and abs(number) > _LARGEST:
            raise InputError(f"{name} is larger than the whole numbers of 64 bits")
        if isinstance(number, float) and not math.isfinite(number):
            raise InputError(f"{name} must be a finite number, not {number}")


def fits(value: Any, declared: Any) -> bool:
    """Whether ``value`` is what ``declared`` says; whole numbers are numbers too.

    ``declared`` is made of int, float, bool, str, tuple, dict, None and other classes.
    """
    members = _members(declared)
    if len(members) > 1:
        return any(fits(value, member) for member in members)
    if get_origin(declared) is tuple:
        parts = get_args(declared)
        if not isinstance(value, tuple):
            return False
        if parts[-1] is ...:
            return all(fits(part, parts[0]) for part in value)
        return len(value) == len(parts) and all(map(fits, value, parts))
    if isinstance(value, bool):  # which Python calls a whole number
        return declared is bool
    kind = get_origin(declared) or declared
    return isinstance(value, (int, float) if kind is float else kind)


def _members(declared: Any) -> tuple[Any, ...]:
    return get_args(declared) if get_origin(declared) in (Union, types.UnionType) else (declared,)
