"""Settings are written once: what else names them says the same."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import get_type_hints

import pytest

from genselfdiff.errors import InputError
from genselfdiff.segmenting.options import OptionArguments, Options
from genselfdiff.settings import About, require_settings
from gsd.settings_page import page


def test_keyword_arguments_are_the_fields_of_the_options():
    assert get_type_hints(OptionArguments) == {part.name: part.type for part in fields(Options)}


def test_the_page_of_settings_is_made_of_the_fields():
    stored = Path(__file__).parents[1] / "docs" / "settings.md"
    assert stored.read_text(encoding="utf-8") == page(), "python -m gsd.settings_page makes it"


@dataclass(frozen=True)
class Some:
    count: int = field(default=1, metadata=About("How many.", least=1, most=9).metadata)
    share: float | None = field(
        default=None, metadata=About(above=0, refusal="{name} {value:g} is none").metadata
    )
    word: str = field(default="a", metadata=About(choices=("a", "b")).metadata)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "count must be at least 1, not 0"),
        ({"count": 10}, "count must be at most 9, not 10"),
        ({"share": 0.0}, "share 0 is none"),
        ({"share": float("nan")}, "share nan is none"),
        ({"word": "c"}, "word must be one of a, b, not c"),
    ],
)
def test_bounds(values, message):
    require_settings(Some())
    with pytest.raises(InputError, match=f"^{message}$"):
        require_settings(Some(**values))
