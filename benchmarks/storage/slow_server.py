"""A server of one file that sends parts of it, each answer some milliseconds late.

python benchmarks/storage/slow_server.py FILE MILLISECONDS prints its URL, and at its end, when its
standard input is closed, how many requests there were and how many bytes it has sent. The URL is
that of a web server, and its first part is that of an S3 server with the file in the bucket
"slides": it answers HeadObject, GetObject and ListObjectsV2, and looks at no signature.
"""

import asyncio
import re
import sys
from pathlib import Path
from urllib.parse import quote

BUCKET = "slides"
TIME = "2026-01-01T00:00:00.000Z", "Thu, 01 Jan 2026 00:00:00 GMT"


class SlowServer:
    def __init__(self, path: Path, seconds: float) -> None:
        self.name, self.content = path.name, memoryview(path.read_bytes())
        self.seconds = seconds
        self.requests = self.sent = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(self.seconds)
                self.requests += 1
                if b"list-type=2" in request.partition(b"\r\n")[0]:
                    head, part = self.listing()
                else:
                    head, part = self.part(request)
                lines = (*head, f"Last-Modified: {TIME[1]}", 'ETag: "1"', "", "")
                writer.write("\r\n".join(lines).encode())
                if not request.startswith(b"HEAD"):
                    self.sent += len(part)
                    writer.write(part)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            writer.close()

    def part(self, request: bytes) -> tuple[list[str], memoryview]:
        """What is asked for of the file: the head of the answer, and the rest."""
        told = re.search(rb"\r\nRange: bytes=(\d+)-(\d+)", request, re.IGNORECASE)
        size = len(self.content)
        if told is None:
            return ["HTTP/1.1 200 OK", f"Content-Length: {size}"], self.content
        part = self.content[int(told[1]) : int(told[2]) + 1]
        place = f"Content-Range: bytes {int(told[1])}-{int(told[1]) + len(part) - 1}/{size}"
        return ["HTTP/1.1 206 Partial Content", f"Content-Length: {len(part)}", place], part

    def listing(self) -> tuple[list[str], bytes]:
        """The bucket as ListObjectsV2 tells it."""
        file = f"<Key>{self.name}</Key><Size>{len(self.content)}</Size>"
        file += f"<LastModified>{TIME[0]}</LastModified><ETag>&quot;1&quot;</ETag>"
        told = f"<Name>{BUCKET}</Name><IsTruncated>false</IsTruncated><Contents>{file}</Contents>"
        text = f"<ListBucketResult>{told}</ListBucketResult>".encode()
        return ["HTTP/1.1 200 OK", f"Content-Length: {len(text)}"], text


async def main(path: Path, seconds: float) -> None:
    server = SlowServer(path, seconds)
    listening = await asyncio.start_server(server.answer, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    print(f"http://127.0.0.1:{port}/{BUCKET}/{quote(path.name)}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(server.requests, server.sent, flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2]) / 1000))
