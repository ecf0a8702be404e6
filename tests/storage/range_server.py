"""A server on this machine that sends parts of files, and can be told to misbehave."""

import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class RangeServer(ThreadingHTTPServer):
    """Serves ``files`` by name.

    Attributes:
        files: content by path, such as "/a.tif".
        etags: of each, where it has one.
        requests: (path, first byte, last byte) of each GET for a part.
        misbehave: called with the handler, path and range before an answer; True: it has answered.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.requests: list[tuple[str, int, int]] = []
        self.misbehave: Callable[[Any, str, tuple[int, int]], bool] | None = None
        self.most_at_once = self.at_once = 0
        self.latency = 0.0
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, path: Path) -> str:
        """Serve a file; returns its URL."""
        self.files[f"/{path.name}"] = path.read_bytes()
        self.etags.setdefault(f"/{path.name}", '"1"')
        return f"{self.address}/{path.name}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RangeServer

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
        try:
            self._answer()
        finally:
            with self.server.lock:
                self.server.at_once -= 1

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        told = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        content = self.server.files.get(path)
        part = (int(told[1]), int(told[2])) if told else (0, 0)
        self.server.requests.append((path, *part))
        time.sleep(self.server.latency)
        if self.server.misbehave is not None and self.server.misbehave(self, path, part):
            return
        if content is None:
            return self.send(404, b"")
        if told is None:
            return self.send(200, content)
        first, last = part[0], min(part[1], len(content) - 1)
        if first >= len(content):
            return self.send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        headers = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
        if path in self.server.etags:
            headers["ETag"] = self.server.etags[path]
        return self.send(206, content[first : last + 1], headers)

    def send(
        self, status: int, data: bytes, headers: dict[str, str] | None = None, length: int = -1
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) if length < 0 else length))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass
