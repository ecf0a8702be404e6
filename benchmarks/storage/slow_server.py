"""A server of one file that sends parts of it, each answer some milliseconds late.

python benchmarks/storage/slow_server.py FILE MILLISECONDS prints its URL, and at its end, when its
standard input is closed, how many requests there were and how many bytes it has sent.
"""

import asyncio
import re
import sys
from pathlib import Path
from urllib.parse import quote


class SlowServer:
    def __init__(self, path: Path, seconds: float) -> None:
        self.content = memoryview(path.read_bytes())
        self.seconds = seconds
        self.requests = self.sent = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(self.seconds)
                told = re.search(rb"\r\nRange: bytes=(\d+)-(\d+)", request)
                first, last = (int(told[1]), int(told[2])) if told else (0, len(self.content) - 1)
                part = self.content[first : last + 1]
                self.requests += 1
                self.sent += len(part)
                head = (
                    f"HTTP/1.1 206 Partial Content\r\nContent-Length: {len(part)}\r\n"
                    f"Content-Range: bytes {first}-{first + len(part) - 1}/{len(self.content)}\r\n"
                    'ETag: "1"\r\n\r\n'
                )
                writer.write(head.encode())
                writer.write(part)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            writer.close()


async def main(path: Path, seconds: float) -> None:
    server = SlowServer(path, seconds)
    listening = await asyncio.start_server(server.answer, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    print(f"http://127.0.0.1:{port}/{quote(path.name)}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(server.requests, server.sent, flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2]) / 1000))
