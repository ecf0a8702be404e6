"""Units and numbers as the programs of this field write them."""

import math

import pytest

from genselfdiff.slides.stored.lengths import micrometres, number


@pytest.mark.parametrize(
    "unit",
    [
        "um", "\u00b5m", "\u03bcm", "micron", "microns", "Micron", "micrometer", "micrometre",
        "Micrometers", "\\u00B5m", "\\u00b5m", " \u00b5m ", "\u00c2\u00b5m", "\u00b5",
    ],
)  # fmt: skip
def test_micrometres(unit: str) -> None:
    assert micrometres(unit) == 1


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("mm", 1e3),
        ("cm", 1e4),
        ("nm", 1e-3),
        ("m", 1e6),
        ("millimetres", 1e3),
        ("Inch", 25400),
        ("inches", 25400),
        ("in", 25400),
        ("\u212b", 1e-4),
        ("Angstrom", 1e-4),
        ("Mm", None),  # a thousand kilometres, if anything
        ("pixel", None),
        ("", None),
        ("u" * 10**6, None),
        (None, None),
        (5, None),
    ],
)
def test_other_units(unit: object, expected: float | None) -> None:
    assert micrometres(unit) == expected


def test_numbers() -> None:
    assert number("0.25") == number("0,25") == number(" 2.5e-1 ") == 0.25
    assert all(math.isnan(number(text)) for text in ("", "1,000.5", "wide", "9" * 400))
