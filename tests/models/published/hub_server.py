"""What of the Hugging Face Hub a push and a pull ask for, for one repository in memory."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_secret"


class Hub(ThreadingHTTPServer):
    """``files`` by name; ``asked`` has a line for each request; ``created`` what was wanted."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.created: dict[str, Any] = {}


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        if found := re.fullmatch(r"/user/model/resolve/[^/]+/(.+)", self.path):
            self._file(found[1])
        elif "/tree/" in self.path:
            self._answer([self._entry(name) for name in self.server.files])
        elif re.match(r"/api/models/user/model(/revision/[^/?]+)?(\?.*)?$", self.path):
            siblings = [{"rfilename": name} for name in self.server.files]
            told = {"id": "user/model", "modelId": "user/model", "sha": COMMIT, "tags": []}
            self._answer({**told, "siblings": siblings})
        else:
            self._answer({"error": "no such thing"}, 404)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        body = self._body()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer({"error": "Invalid credentials"}, 401)
        elif self.path == "/api/repos/create":
            self.server.created = json.loads(body)
            self._answer({"url": self._page(), "name": "user/model"})
        elif "/preupload/" in self.path:
            wanted = json.loads(body)["files"]
            kind = {"uploadMode": "regular", "shouldIgnore": False}
            self._answer({"files": [{"path": each["path"], **kind} for each in wanted]})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.files[line["value"]["path"]] = content
            told = {"commitUrl": f"{self._page()}/commit/{COMMIT}", "commitOid": COMMIT}
            self._answer({"success": True, **told})
        else:
            self._answer({})

    def _page(self) -> str:
        return f"http://{self.headers['Host']}/user/model"

    def _body(self) -> bytes:
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _entry(self, name: str) -> dict[str, Any]:
        content = self.server.files[name]
        oid = hashlib.sha1(content).hexdigest()
        return {"type": "file", "path": name, "size": len(content), "oid": oid}

    def _file(self, name: str) -> None:
        if name not in self.server.files:
            self._answer({"error": "no such file"}, 404)
            return
        content = self.server.files[name]
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def _answer(self, told: Any, status: int = 200) -> None:
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Hub]:
    """The server, on a port of its own."""
    with Hub() as hub:
        thread = Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
