"""What lies below a URL."""

from collections.abc import Collection
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from genselfdiff.errors import InputError
from genselfdiff.storage.filesystems import filesystem_of, patiently
from genselfdiff.storage.object_ranges import stamp_of
from genselfdiff.storage.places import Url

_MOST_FOLDERS = 100_000
"""That are looked into: a server can make them up as it goes."""


def is_folder(url: Url) -> bool:
    """Whether a URL is meant to be that of a folder: it ends in a slash. Nobody is asked."""
    return url.address.partition("?")[0].endswith("/")


def urls_below(folder: Url, suffixes: Collection[str], whole: Collection[str]) -> list[Url]:
    """List the files in ``folder`` and in all folders below it, in the order of their names.

    Hidden files and folders are left out. Of a web server only the page of ``folder`` itself is
    looked at, and of that what lies in it.

    Args:
        folder: where to look.
        suffixes: lower-case endings of the names of files, which may be in capitals.
        whole: those of folders that count as a file.

    Raises:
        InputError: it is not there or cannot be listed.
    """
    filesystem, path = filesystem_of(folder)
    by_http = folder.scheme in ("http", "https")
    root = path.partition("?")[0].rstrip("/") + "/"
    found, waiting, seen = [], [path], 0
    while waiting and seen < _MOST_FOLDERS:
        here = waiting.pop()
        seen += 1
        entries = patiently(folder, partial(_list, filesystem, here))
        for name, is_directory in sorted(entries):
            inside = name.partition("?")[0].rstrip("/")
            ending = PurePosixPath(inside).suffix.lower()
            hidden = PurePosixPath(inside).name.startswith(".")
            if hidden or not inside.startswith(root) or inside == here.rstrip("/"):
                continue
            if ending in (whole if is_directory else suffixes):
                found.append(inside.removeprefix(root))
            elif is_directory and not by_http:
                waiting.append(inside)
    return [folder / name for name in sorted(set(found))]


def names_in(folder: Url) -> list[tuple[str, bool]]:
    """List what lies in ``folder`` itself, sorted: its name, and whether it is a folder.

    What is hidden is left out, and so are folders on web servers.

    Raises:
        InputError: it is not there or cannot be listed.
    """
    filesystem, path = filesystem_of(folder)
    root = path.partition("?")[0].rstrip("/") + "/"
    found = set()
    for name, is_directory in patiently(folder, partial(_list, filesystem, path)):
        inside = name.partition("?")[0].removesuffix("/").removeprefix(root)
        is_link = is_directory and folder.scheme in ("http", "https")
        if inside and "/" not in inside and not inside.startswith(".") and not is_link:
            found.add((inside, is_directory))
    return sorted(found)


def _list(filesystem: Any, path: str) -> list[tuple[str, bool]]:
    filesystem.invalidate_cache()
    entries = filesystem.ls(path, detail=True)
    return [(entry["name"], entry["type"] == "directory") for entry in entries]


def contents_of(folder: Url) -> list[tuple[str, int, str]]:
    """List all that lies below ``folder``, sorted: name within it, bytes, and `stamp_of` it.

    Raises:
        InputError: it cannot be listed, as on web servers.
    """
    if folder.scheme in ("http", "https"):
        raise InputError(f"{folder}: web servers do not tell what a folder holds: copy it")
    filesystem, path = filesystem_of(folder)

    def find() -> dict[str, Any]:
        filesystem.invalidate_cache()
        return dict(filesystem.find(path, detail=True))

    root = path.rstrip("/") + "/"
    return sorted(
        (name.removeprefix(root), int(info.get("size") or 0), stamp_of(info))
        for name, info in patiently(folder, find).items()
    )
