"""Where a file is: a path on this machine, or a URL of object storage or a server."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_USER = re.compile(r"(//)[^/\s@]*@")
_QUERY = re.compile(r"\?[^\s'\")>]+")


@dataclass(frozen=True)
class Url:
    """The address of a file or folder, such as ``s3://bucket/slides/a.svs``.

    As text it lacks what may be secret: user and password, and a query, in which signatures stand.

    Attributes:
        address: as it was given, for whoever opens it.
    """

    address: str

    def __str__(self) -> str:
        return without_secrets(self.address)

    def __repr__(self) -> str:
        return f"Url({str(self)!r})"

    @property
    def scheme(self) -> str:
        """The part before ``://``, in lower case."""
        return self.address.partition("://")[0].lower()

    @property
    def name(self) -> str:
        """The last part of its path, as a file would be called."""
        last = self._split()[0].rstrip("/").rpartition("/")[2]
        return (unquote(last) if self.scheme in ("http", "https") else last).replace("/", "_")

    @property
    def stem(self) -> str:
        """The name without its last ending."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """The last ending of the name, with its dot."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> "Url":
        """The folder that it lies in."""
        return Url(self._split()[0].rstrip("/").rpartition("/")[0])

    def __truediv__(self, name: str) -> "Url":
        path, query = self._split()
        return Url(f"{path.rstrip('/')}/{name}{query}")

    def is_below(self, folder: "Url") -> bool:
        """Whether it lies in ``folder``, at any depth."""
        return self._split()[0].startswith(folder._split()[0].rstrip("/") + "/")

    def _split(self) -> tuple[str, str]:
        """The address without its query, and that with its question mark."""
        path, mark, query = self.address.partition("?")
        return path, mark + query


Place = Path | Url
"""Both have ``name``, ``stem``, ``suffix`` and ``parent``, and are shown by ``str``."""


def place_of(named: str | Path | Url) -> Place:
    """What a user has named: text with ``://`` is a URL, all else a path; ``file://`` as well."""
    if not isinstance(named, str) or not _URL.match(named):
        return named if isinstance(named, Url) else Path(named)
    if named.lower().startswith("file://"):
        return Path(unquote(urlsplit(named).path))
    return Url(named)


def local_paths(places: Iterable[Place]) -> list[Path]:
    """Those that are on this machine."""
    return [place for place in places if isinstance(place, Path)]


def without_secrets(text: str) -> str:
    """``text`` without the users, passwords and queries of URLs in it."""
    return _QUERY.sub("?...", _USER.sub(r"\1", text)) if "://" in text else text
