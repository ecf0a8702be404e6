"""What answers of the server have in common, and the parts that are plugged into it."""

import asyncio
import json
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import BaseRoute

from genselfdiff.viewer.objects import THREADS

Made = TypeVar("Made")

ASKED_AGAIN = {"Cache-Control": "no-store"}
"""Headers of an answer that may be another the next time."""

_NUMBER = re.compile("[0-9]{1,9}")

_GONE = 499
"""nginx's status of a request that nobody waits for; nobody sees it."""


@dataclass(frozen=True)
class Part:
    """Something that the page can do beside showing slides.

    Attributes:
        name: the page loads ``static/NAME/part.js``.
        routes: what is answered for it, all below ``/NAME``.
    """

    name: str
    routes: Sequence[BaseRoute]


class Workers:
    """Threads that make answers."""

    def __init__(self) -> None:
        count = os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(count, THREADS)
        # Requests wait here, not in the pool, to be dropped if the browser gives them up.
        self._free = asyncio.Semaphore(count)

    async def made(self, request: Request, make: Callable[[], Made]) -> Made:
        """What ``make`` gives in a thread, unless the browser has given the request up before."""
        async with self._free:
            if await request.is_disconnected():
                raise HTTPException(_GONE)
            return await asyncio.get_running_loop().run_in_executor(self._pool, make)


async def made(request: Request, make: Callable[[], Made]) -> Made:
    """`Workers.made` of the server that was asked."""
    workers: Workers = request.app.state.workers
    return await workers.made(request, make)


def numbers(request: Request, *names: str) -> list[int]:
    """The whole numbers in the address; 404 where one is none."""
    values = [request.path_params[name] for name in names]
    if not all(_NUMBER.fullmatch(value) for value in values):
        raise HTTPException(404)
    return [int(value) for value in values]


async def body_of(request: Request, most: int) -> bytes:
    """What was sent with a request; 413 where it is more than ``most`` bytes."""
    told = request.headers.get("content-length", "0")
    if _NUMBER.fullmatch(told) is None or int(told) > most:
        raise HTTPException(413)
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > most:
            raise HTTPException(413)
    return bytes(content)


async def sent(request: Request, most: int) -> dict[str, Any]:
    """The JSON object that was sent; 415 and 422 where it is none, 413 as `body_of`."""
    if request.headers.get("content-type") != "application/json":
        raise HTTPException(415)
    try:
        content = json.loads(await body_of(request, most))
    except (ValueError, RecursionError) as error:
        raise HTTPException(422) from error
    if not isinstance(content, dict):
        raise HTTPException(422)
    return content


def whole_numbers(told: object) -> list[int]:
    """A list of numbers that was sent, each as an address could have it; 422 where it is none."""
    if not isinstance(told, list) or not all(type(n) is int and 0 <= n < 10**9 for n in told):
        raise HTTPException(422)
    return told
