"""With which settings a file beside a mask was made: told by the file itself.

A table cannot tell it in its content. Each file gets an extended attribute, which stays with it
when it is renamed or moved, and which copies and some file systems of networks lose; a page has it
in its head as well.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from html import unescape
from pathlib import Path
from typing import Any

from genselfdiff.errors import InputError
from genselfdiff.input_files import open_input, parse_json
from genselfdiff.json_records import as_json, named

_ATTRIBUTE = "user.genselfdiff"
"""Python has attributes on Linux only: elsewhere, its functions for them are missing."""

_IN_PAGE = re.compile(r'<meta name="genselfdiff" content="([^"]*)">')
_HEAD = 2**16
"""Bytes of a page in which its head is looked for."""


@dataclass(frozen=True)
class OverlaySettings:
    """What decides the content of an overlay.

    Attributes:
        mask: digest of the mask's job.
        width: in pixels; None: the usual one.
        outline: outlines are drawn, not filled areas.
    """

    mask: str
    width: int | None
    outline: bool = False


@dataclass(frozen=True)
class ObjectSettings:
    """What decides the content of a file of objects.

    Attributes:
        mask: digest of the mask's job, which names the model, and so says whether objects are cut
            by their cores.
        instances, seed_distance, min_area: see ``write_objects``.
    """

    mask: str
    instances: bool | None
    seed_distance: float | None = field(metadata=named("seed distance"))
    min_area: float | None = field(metadata=named("min area"))


Settings = OverlaySettings | ObjectSettings


@dataclass(frozen=True)
class SidecarRecord:
    """What is known of a file beside a mask.

    Attributes:
        settings: what decided its content, as JSON has it; anything where others wrote it.
        sha256: of the content that gsd gave it; None: not known.
        objects: how many objects of each class were counted when it was made, if they were.
    """

    settings: Mapping[str, Any]
    sha256: str | None = None
    objects: Mapping[str, int] | None = None

    def has(self, settings: Settings) -> bool:
        """Whether the file was made with these settings."""
        return self.settings == as_json(settings)

    def is_unchanged(self, path: Path) -> bool:
        """Whether the file is as gsd has left it."""
        return self.sha256 is not None and self.sha256 == digest(path)


def write_record(path: Path, settings: Settings, objects: dict[str, int] | None) -> None:
    """Let a file tell how it was made, where the file system can keep that."""
    record = asdict(SidecarRecord(as_json(settings), digest(path), objects))
    with suppress(OSError, AttributeError):
        os.setxattr(path, _ATTRIBUTE, json.dumps(record).encode(), follow_symlinks=False)


def read_record(path: Path) -> SidecarRecord | None:
    """What a file tells of how it was made; None: nothing."""
    with suppress(OSError, InputError, TypeError, AttributeError):
        record = SidecarRecord(**parse_json(os.getxattr(path, _ATTRIBUTE).decode("ascii"), path))
        if isinstance(record.settings, dict) and isinstance(record.objects, dict | None):
            return record
    with suppress(OSError, InputError), open_input(path) as stream:
        found = _IN_PAGE.search(stream.read(_HEAD).decode(errors="replace"))
        settings = parse_json(unescape(found[1]), path) if found else None
        return SidecarRecord(settings) if isinstance(settings, dict) else None
    return None


def digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    with open_input(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
