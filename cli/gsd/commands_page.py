"""All commands and their options as a page: ``python -m gsd.commands_page``."""

import inspect
import re
from collections.abc import Iterator

import click

from gsd.main import main


def page() -> str:
    """Markdown, a section for each command."""
    intro = (
        "# Commands",
        "Each command says with `--help` what this page says. Exit status 0 is success, 1 an error"
        " in one line on stderr, 2 a mistake in the command line, 130 Ctrl-C and 143 SIGTERM. This"
        " page is made of the code, by `python -m gsd.commands_page > docs/commands.md`.",
    )
    return "\n\n".join([*intro, *_sections(main, click.Context(main, info_name="gsd"))]) + "\n"


def _sections(command: click.Command, ctx: click.Context) -> Iterator[str]:
    level = max(2, len(ctx.command_path.split()))
    yield f"{'#' * level} {ctx.command_path}"
    yield from map(_paragraph, inspect.cleandoc(command.help or "").split("\n\n"))
    yield _block([" ".join([ctx.command_path, *command.collect_usage_pieces(ctx)])])
    records = [param.get_help_record(ctx) for param in command.params]
    told = [record for record in records if record is not None and record[1]]
    rows = [f"| `{_in_table(option)}` | {_escaped(text)} |" for option, text in told]
    if rows:
        yield "\n".join(["| option | what it does |", "|---|---|", *rows])
    for example in inspect.cleandoc(command.epilog or "").split("\b\n")[1:]:
        title, *lines = example.strip("\n").splitlines()
        yield title
        yield _block([line.removeprefix("  ") for line in lines])
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            inner = command.get_command(ctx, name)
            assert inner is not None
            yield from _sections(inner, click.Context(inner, info_name=name, parent=ctx))


def _paragraph(text: str) -> str:
    if text.startswith("\b\n"):
        return _block(text.splitlines()[1:])
    return _escaped(text.replace("\n", " "))


def _block(lines: list[str]) -> str:
    return "\n".join(["```text", *lines, "```"])


def _in_table(code: str) -> str:
    return code.replace("|", r"\|")


def _escaped(text: str) -> str:
    """``text`` with what Markdown would take for its own."""
    return re.sub(r"([*<|`])", r"\\\1", text)


if __name__ == "__main__":
    print(page(), end="")
