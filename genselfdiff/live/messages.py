"""What the server and the process that predicts tell each other through pipes."""

import json
from typing import IO, Any

Message = tuple[dict[str, Any], bytes]
"""What is told, and bytes that belong to it."""


def send(stream: IO[bytes], told: dict[str, Any], content: bytes = b"") -> None:
    """Send a message: a line of JSON, and behind it as many bytes as that says.

    Raises:
        OSError: nobody reads any more.
    """
    line = json.dumps(told | {"bytes": len(content)}).encode()
    stream.write(line + b"\n" + content)
    stream.flush()


def receive(stream: IO[bytes]) -> Message | None:
    """The next message; None: the other side has ended, maybe in the middle of one."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    told: dict[str, Any] = json.loads(line)
    size = told.pop("bytes")
    content = stream.read(size)
    return (told, content) if len(content) == size else None
