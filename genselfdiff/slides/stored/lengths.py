"""Lengths as files write them: numbers with a point or a comma, units by symbol or by name."""

import math
import re
import unicodedata

_BY_SYMBOL = {
    "m": 1e6, "dm": 1e5, "cm": 1e4, "mm": 1e3, "\u03bcm": 1.0, "um": 1.0, "\u03bc": 1.0,
    "nm": 1e-3, "pm": 1e-6, "\u00c5": 1e-4, "in": 25400.0,
}  # fmt: skip
"""Micrometres, by symbols in the normal form NFKC, in which there is but one letter for micro."""

_BY_NAME = {
    "meter": 1e6, "decimeter": 1e5, "centimeter": 1e4, "millimeter": 1e3, "micrometer": 1.0,
    "micron": 1.0, "nanometer": 1e-3, "picometer": 1e-6, "angstrom": 1e-4, "inch": 25400.0,
}  # fmt: skip

_LONGEST = 100
"""Characters that a unit or number may have; no more are looked at."""


def micrometres(unit: object) -> float | None:
    r"""Return the micrometres in a unit; None if it is no unit of length.

    Names are English, in any case and number. ImageJ writes a letter outside ASCII as ``\u00B5``;
    programs that took UTF-8 for Latin-1 have left a \u00c2 before it.
    """
    if not isinstance(unit, str) or len(unit) > _LONGEST:
        return None
    spelt = re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), unit)
    symbol = unicodedata.normalize("NFKC", spelt.replace("\u00c2", "").strip())
    if symbol in _BY_SYMBOL:  # in their case: Mm are not mm
        return _BY_SYMBOL[symbol]
    name = symbol.casefold().replace("metre", "meter")
    one = name.removesuffix("es") if name == "inches" else name.removesuffix("s")
    return _BY_NAME.get(one)


def number(text: str) -> float:
    """Read a number with a decimal point or comma; NaN if it is none."""
    try:
        return float(text.replace(",", ".")) if len(text) <= _LONGEST else math.nan
    except ValueError:
        return math.nan
