"""The settings of segmenting and training as a page: ``python -m gsd.settings_page``."""

from dataclasses import Field, fields

from genselfdiff.segmenting.options import Options
from genselfdiff.settings import about, in_words
from genselfdiff.training.settings.run_config import RunConfig
from genselfdiff.training.settings.stage_configs import FinetuneConfig, PretrainConfig

_TABLES = (
    ("Segmenting: `Options`, and the keyword arguments of `genselfdiff.segment`", Options),
    ("Training, both stages", RunConfig),
    ("Training, stage 1: `PretrainConfig`", PretrainConfig),
    ("Training, stage 2: `FinetuneConfig`", FinetuneConfig),
)


def page() -> str:
    """Markdown, a table for each dataclass of settings."""
    parts = [
        "# Settings",
        "Names are those of Python and of TOML files; the commands have them with hyphens, and"
        " write some otherwise, as their `--help` says. This page is made of the code, by"
        " `python -m gsd.settings_page > docs/settings.md`.",
    ]
    for title, kind in _TABLES:
        inherited = {part.name: part for part in fields(RunConfig)} if kind is not RunConfig else {}
        rows = [
            _row(part)
            for part in fields(kind)
            if "about" in part.metadata and part != inherited.get(part.name)
        ]
        head = ["| setting | default | takes | what it is |", "|---|---|---|---|"]
        parts += [f"## {title}", "\n".join(head + rows)]
    return "\n\n".join(parts) + "\n"


def _row(part: "Field[object]") -> str:
    declared = about(part)
    default = "" if part.default in (None, "", ()) else f"`{part.default}`"
    takes = declared.takes if declared.choices else f"{in_words(part.type)} {declared.takes}"
    return f"| `{part.name}` | {default} | {takes.strip()} | {declared.help} |"


if __name__ == "__main__":
    print(page(), end="")
