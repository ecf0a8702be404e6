"""Settings: fields of dataclasses that say, each in one place, what they take and what for.

Commands make their options of them, the dataclasses their checks, and docs/settings.md is made of
them.
"""

import math
import operator
import types
from collections.abc import Callable, Collection
from dataclasses import Field, dataclass, fields
from typing import Any, Union, get_args, get_origin

from genselfdiff.choices import MPP_RANGE
from genselfdiff.errors import InputError

_LARGEST = 2**63 - 2
"""Whole numbers are 64 bits wide in torch; a seed has one added to it."""

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@dataclass(frozen=True)
class About:
    """What is known of a setting beside its name, type and default.

    Attributes:
        help: what it is, for people.
        least, most: that a number may be.
        above, below: what a number has to be more, or less, than.
        choices: one of which it is.
        check: raises InputError, with the name, for a value that is none; instead of the bounds.
        refusal: what is said of one beyond the bounds, with ``{name}`` and ``{value}``; None: the
            usual words.
    """

    help: str = ""
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    choices: Collection[Any] = ()
    check: Callable[[Any, str], None] | None = None
    refusal: str | None = None

    @property
    def metadata(self) -> dict[str, "About"]:
        """What `dataclasses.field` takes."""
        return {"about": self}

    def require(self, name: str, value: Any) -> None:
        """Raise InputError unless the setting takes ``value``."""
        if self.check is not None:
            self.check(value, name)
        elif (bounds := self._overstepped(value)) is not None:
            refusal = self.refusal or f"{{name}} must be {bounds}, not {{value}}"
            raise InputError(refusal.format(name=name, value=value))

    def _overstepped(self, value: Any) -> str | None:
        """In words what ``value`` would have to be."""
        if self.choices:
            return None if value in self.choices else self.takes
        for bound, holds, words in self._bounds():
            if not holds(value, bound):  # NaN is beyond all
                return f"{words} {bound}"
        return None

    @property
    def takes(self) -> str:
        """Choices or bounds in words; empty where there are none."""
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        return " and ".join(f"{words} {bound}" for bound, _, words in self._bounds())

    def _bounds(self) -> list[tuple[float, Callable[[Any, Any], bool], str]]:
        bounds = (
            (self.least, operator.ge, "at least"),
            (self.above, operator.gt, "above"),
            (self.most, operator.le, "at most"),
            (self.below, operator.lt, "below"),
        )
        return [(bound, holds, words) for bound, holds, words in bounds if bound is not None]


def about(part: Field[Any]) -> About:
    """What is known of a field."""
    found: About = part.metadata.get("about", About())
    return found


def check_mpp(mpp: float, name: str = "mpp") -> None:
    """Raise InputError, with the setting's ``name``, unless ``mpp`` lies in ``MPP_RANGE``."""
    low, high = MPP_RANGE
    if not low <= mpp <= high:  # false for NaN
        raise InputError(f"{name} {mpp:g} must be between {low:g} and {high:g} um/px")


def require_types(record: Any) -> None:
    """Raise InputError unless the fields of a dataclass have the types that they declare."""
    for part in fields(record):
        require_type(part.name, getattr(record, part.name), part.type)


def require_settings(record: Any) -> None:
    """Raise InputError unless the fields of a dataclass that are not None are what they take."""
    for part in fields(record):
        value = getattr(record, part.name)
        if value is not None:
            about(part).require(part.name, value)


def require_type(name: str, value: Any, declared: Any) -> None:
    """Raise InputError unless ``value`` is what ``declared`` says, and every number in it finite.

    ``declared`` is one that `fits` knows; whole numbers have 64 bits.
    """
    if not fits(value, declared):
        raise InputError(f"{name} must be {in_words(declared)}, not {type(value).__name__}")
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, int) and abs(number) > _LARGEST:
            raise InputError(f"{name} is larger than the whole numbers of 64 bits")
        if isinstance(number, float) and not math.isfinite(number):
            raise InputError(f"{name} must be a finite number, not {number}")


def in_words(declared: Any) -> str:
    """What a type, as `fits` knows it, takes; None aside, and the first of several."""
    kind = _members(declared)[0]
    return _WORDS.get(kind, "a table" if get_origin(kind) is dict else "a list")


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
