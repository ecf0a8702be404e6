"""The page of commands is made of the commands."""

from pathlib import Path

from gsd.commands_page import page


def test_the_page_of_commands_says_what_help_says() -> None:
    stored = Path(__file__).parents[2] / "docs" / "commands.md"
    assert stored.read_text(encoding="utf-8") == page(), "python -m gsd.commands_page makes it"
