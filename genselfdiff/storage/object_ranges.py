"""Parts of an object as it was when it was opened, by the protocols that fsspec knows."""

import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

from genselfdiff.errors import InputError
from genselfdiff.storage.filesystems import Changed, Transient, filesystem_of, patiently
from genselfdiff.storage.places import Url

HEAD = 2**17
"""Bytes from the beginning that opening a file by HTTP brings along."""

_LOOK_AGAIN = 1.0
"""Seconds after which an object is asked again whether it is the same, where requests do not say.

What is made of an object is held against it once more at the end, see ``slides.fingerprint``.
"""

_STAMPS = ("VersionId", "generation", "ETag", "etag", "md5Hash", "content_md5", "Content-MD5")
_TIMES = ("LastModified", "last_modified", "Last-Modified", "mtime", "updated", "created")
_SOON_OVER = frozenset({408, 425, 429, 500, 502, 503, 504, 507, 509})
_SECONDS = {"total": 300, "sock_connect": 30, "sock_read": 60}


class ObjectRanges(ABC):
    """An object, of which any bytes can be fetched; threads may do so at once.

    Attributes:
        url: where it is.
        size: in bytes.
        stamp: what another content would have otherwise: version or ETag, else when it was
            written; empty where its server tells neither.
        head: what of its beginning is known already.
    """

    url: Url
    size: int
    stamp: str
    head: bytes = b""

    def fetch(self, start: int, stop: int) -> bytes:
        """Fetch the bytes from ``start`` to ``stop``, which lie in the object.

        Raises:
            InputError: they cannot be had, or the object was changed.
        """
        return patiently(self.url, lambda: self._whole_answer(start, stop))

    @abstractmethod
    def _request(self, start: int, stop: int) -> bytes:
        """Ask once."""

    def _whole_answer(self, start: int, stop: int) -> bytes:
        data = self._request(start, stop)
        if len(data) != stop - start:
            raise Transient(f"{len(data)} bytes came where {stop - start} were asked for")
        return data


def open_ranges(url: Url) -> ObjectRanges:
    """Open an object.

    Raises:
        InputError: it is not there, may not be read, or what reads such a URL is not installed.
    """
    filesystem, path = filesystem_of(url)
    return (
        _Http(url, filesystem) if url.scheme in ("http", "https") else _Any(url, filesystem, path)
    )


def stamp_of(info: Mapping[str, Any]) -> str:
    """What tells the content of an object from another, of what its file system says of it."""
    told = [name for name in _STAMPS if info.get(name)] or [
        name for name in _TIMES if info.get(name)
    ]
    return " ".join(f"{name}={info[name]}" for name in told[:1])


class _Any(ObjectRanges):
    """An object of any file system. S3 refuses to read from another than was opened."""

    def __init__(self, url: Url, filesystem: Any, path: str) -> None:
        self.url = url
        self._filesystem, self._path = filesystem, path
        info = patiently(url, self._look)
        if info["type"] == "directory":
            raise InputError(f"{url}: is a folder; name a slide or image in it, or end it in /")
        if info.get("size") is None:
            raise InputError(f"{url}: its server does not tell its size: copy the file")
        self.size, self.stamp = int(info["size"]), stamp_of(info)
        self._file = patiently(url, lambda: filesystem.open(path, "rb", cache_type="none"))
        self._by_file = hasattr(self._file, "_fetch_range")
        self._looked = time.monotonic()
        self._lock = threading.Lock()

    def _look(self) -> Mapping[str, Any]:
        self._filesystem.invalidate_cache()
        return self._filesystem.info(self._path)

    def _request(self, start: int, stop: int) -> bytes:
        try:
            if self._by_file:
                data = self._file._fetch_range(start, stop)
            else:
                data = self._filesystem.cat_file(self._path, start=start, end=stop)
        except Exception as error:
            if type(error).__name__ == "FileExpired":
                raise Changed(self.url) from None
            raise
        with self._lock:
            is_due = time.monotonic() - self._looked > _LOOK_AGAIN
            self._looked = time.monotonic() if is_due else self._looked
        if is_due or len(data) != stop - start:
            info = self._look()
            if (info.get("size"), stamp_of(info)) != (self.size, self.stamp):
                raise Changed(self.url)
        return bytes(data)


class _Answer(NamedTuple):
    """What a server has sent: its status, headers, and at most as many bytes as were asked for."""

    status: int
    headers: Mapping[str, str]
    data: bytes
    has_more: bool


class _Http(ObjectRanges):
    """A file on a web server, through the session of fsspec's file system.

    fsspec would take the whole file for a part of it, and nobody's ETag would be looked at.
    """

    def __init__(self, url: Url, filesystem: Any) -> None:
        self.url = url
        self._filesystem = filesystem
        self.size, self.stamp = 0, ""  # until it is told
        self.head = patiently(url, self._opening)

    def _opening(self) -> bytes:
        answer = self._ask(0, HEAD)
        if answer.status == 416:
            self.size = 0
            return b""
        first, last, total = self._part_of(answer)
        if total is None:
            raise InputError(f"{self.url}: its server does not tell its size: copy the file")
        if first != 0 or last + 1 != min(HEAD, total) or len(answer.data) != last + 1:
            raise Transient("the answer is not the part that was asked for")
        self.size, self.stamp = total, stamp_of(answer.headers)
        return answer.data

    def _request(self, start: int, stop: int) -> bytes:
        answer = self._ask(start, stop)
        if answer.status in (412, 416):
            raise Changed(self.url)
        first, last, total = self._part_of(answer)
        if total not in (None, self.size) or stamp_of(answer.headers) != self.stamp:
            raise Changed(self.url)
        if (first, last + 1) != (start, stop) or answer.has_more:
            raise Transient("the answer is not the part that was asked for")
        return answer.data

    def _part_of(self, answer: _Answer) -> tuple[int, int, int | None]:
        """First and last byte that were sent, and how many there are in all, if that is told."""
        if answer.status in _SOON_OVER:
            after = answer.headers.get("Retry-After", "")
            wait = float(after) if after.isdecimal() and len(after) < 6 else None
            raise Transient(f"its server answers HTTP {answer.status}", wait)
        if answer.status in (404, 410):
            raise FileNotFoundError
        if answer.status in (401, 403, 407):
            raise PermissionError
        if answer.status == 200:
            raise InputError(
                f"{self.url}: its server sends files as a whole only, no parts of them: copy the"
                " file and name the copy"
            )
        if answer.status != 206:
            raise InputError(f"{self.url}: cannot be read: its server answers HTTP {answer.status}")
        told = re.fullmatch(
            r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", answer.headers.get("Content-Range", "")
        )
        encoding = answer.headers.get("Content-Encoding", "identity")
        if told is None or encoding != "identity":
            raise Transient("the answer does not tell which part of the file it is")
        return int(told[1]), int(told[2]), None if told[3] == "*" else int(told[3])

    def _ask(self, start: int, stop: int) -> _Answer:
        from fsspec.asyn import sync

        return sync(self._filesystem.loop, self._answer, start, stop)

    async def _answer(self, start: int, stop: int) -> _Answer:
        from aiohttp import ClientTimeout

        session = await self._filesystem.set_session()
        options = dict(self._filesystem.kwargs)
        headers = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        options["headers"] = {**options.get("headers", {}), **headers}
        options.setdefault("timeout", ClientTimeout(**_SECONDS))
        async with session.get(
            self._filesystem.encode_url(self.url.address), **options
        ) as response:
            data = bytearray()
            while response.status == 206 and len(data) <= stop - start:
                piece = await response.content.read(stop - start + 1 - len(data))
                if not piece:
                    break
                data += piece
            has_more = len(data) > stop - start
            return _Answer(response.status, response.headers, bytes(data[: stop - start]), has_more)
