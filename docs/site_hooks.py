"""Hooks of mkdocs: pages from outside docs/, links that hold there too, and nothing from the web.

Links in the Markdown of this repository lead from file to file, as GitHub follows them. On the site
they lead from page to page; a file that is no page keeps its name and loses its link.
"""

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md"} | {
    name: name
    for name in (
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "RELEASING.md",
        *(str(path.relative_to(ROOT)) for path in (ROOT / "benchmarks").rglob("*.md")),
    )
}
"""Pages from outside docs/, and what they are called on the site."""

_LINK = re.compile(r"\[(?P<text>[^\[\]]*)\]\((?P<file>[^()\s#:]+)(?P<place>#[^()\s]*)?\)")
_FROM_THE_WEB = re.compile(
    r"<(?:script|img|iframe)[^>]*\bsrc=\"?(?:https?:)?//"
    r"|<link[^>]*\brel=\"?(?:stylesheet|preconnect|preload)[^>]*\bhref=\"?(?:https?:)?//"
)


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages from outside docs/."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: Any, files: Files) -> str:
    """Turn links between files of the repository into links between pages."""
    name = page.file.src_uri
    source = next((own for own, there in PAGES.items() if there == name), f"docs/{name}")

    def on_site(link: re.Match[str]) -> str:
        path = os.path.normpath(PurePosixPath(source).parent / link["file"])
        if not (ROOT / path).exists():
            raise PluginError(f"{source} links to {link['file']}, which does not exist")
        there = PAGES.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(there) is None:
            return link["text"]
        way = os.path.relpath(there, PurePosixPath(name).parent)
        return f"[{link['text']}]({way}{link['place'] or ''})"

    return _LINK.sub(on_site, markdown)


def on_post_page(output: str, *, page: Page, config: Any) -> str:
    """Refuse a page whose reader's browser would load something from elsewhere."""
    found = _FROM_THE_WEB.search(output)
    if found is not None:
        raise PluginError(f"{page.file.src_uri} loads from elsewhere: {found[0]}")
    return output
