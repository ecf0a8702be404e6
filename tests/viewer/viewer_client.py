"""The server of the page, asked without a network."""

import asyncio
from typing import Any

import httpx

from genselfdiff.viewer.answering import Part
from genselfdiff.viewer.guard import Guard
from genselfdiff.viewer.library import Library
from genselfdiff.viewer.server import viewer_app

TOKEN = "0123456789abcdef"


class Client:
    """Asks the server without a network."""

    def __init__(self, library: Library, *parts: Part) -> None:
        self.app = Guard(viewer_app(library, parts), TOKEN, ["slides.example.org"])

    def get(self, address: str | httpx.URL, **more: Any) -> httpx.Response:
        return self.request("GET", address, **more)

    def request(self, method: str, address: str | httpx.URL, **more: Any) -> httpx.Response:
        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            base = f"http://127.0.0.1:8000/{TOKEN}/"
            async with httpx.AsyncClient(transport=transport, base_url=base) as client:
                return await client.request(method, address, **more)

        return asyncio.run(asked())
