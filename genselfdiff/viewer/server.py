"""The server of the page: which request is answered with what."""

import asyncio
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from genselfdiff.errors import InputError, one_line
from genselfdiff.viewer.library import Library
from genselfdiff.viewer.objects import THREADS
from genselfdiff.viewer.tiles import NoTile, TilePlace

Made = TypeVar("Made")

_KINDS = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "txt": "text/plain; charset=utf-8",
}

_KEPT = {"Cache-Control": "private, max-age=86400, immutable"}
"""Of tiles: their address holds the token, which is another for every server."""
_ASKED_AGAIN = {"Cache-Control": "no-store"}

_NUMBER = re.compile("[0-9]{1,9}")

_GONE = 499
"""nginx's status of a request that nobody waits for; nobody sees it."""


def viewer_app(library: Library) -> Starlette:
    """Make the ASGI application that serves the page, its data and its tiles.

    ======================================== ===================================================
    ``/``, ``/static/NAME``                  the page and what belongs to it
    ``/slides``                              all slides: names, states, areas
    ``/slides/N``                            one of them: size, resolution, layers with classes
    ``/slides/N/thumbnail``                  JPEG
    ``/slides/N/tiles/LEVEL/X/Y``            JPEG; see ``tiles``
    ``/slides/N/layers/M/PLANE/LEVEL/X/Y``   PNG
    ``/slides/N/objects/M``                  how far the objects of a mask are found
    ``/slides/N/objects/M/at/X/Y``           the object at a pixel of the mask, or null
    ``/slides/N/objects/M/LEVEL/X/Y``        outlines; see ``objects``
    ======================================== ===================================================

    Args:
        library: what is shown.
    """
    return _Server(library).app()


class _Server:
    def __init__(self, library: Library) -> None:
        self._library = library
        self._static = _read_static()
        count = os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(count, THREADS)
        # Requests wait here, not in the pool, to be dropped if the browser gives them up.
        self._free = asyncio.Semaphore(count)

    def app(self) -> Starlette:
        slide, place = "/slides/{slide}", "{level}/{x}/{y}"
        objects = f"{slide}/objects/{{layer}}"
        return Starlette(
            routes=[
                Route("/", self._page),
                Route("/static/{name}", self._file),
                Route("/slides", self._overview),
                Route(slide, self._details),
                Route(f"{slide}/thumbnail", self._thumbnail),
                Route(f"{slide}/tiles/{place}", self._slide_tile),
                Route(f"{slide}/layers/{{layer}}/{{plane}}/{place}", self._layer_tile),
                Route(objects, self._objects),
                Route(f"{objects}/at/{{x}}/{{y}}", self._object),
                Route(f"{objects}/{place}", self._outline_tile),
            ],
            exception_handlers={
                InputError: _unreadable,
                OSError: _unreadable,
                NoTile: _missing,
                LookupError: _missing,
            },
        )

    async def _page(self, request: Request) -> Response:
        return self._static_file("index.html")

    async def _file(self, request: Request) -> Response:
        return self._static_file(request.path_params["name"])

    def _static_file(self, name: str) -> Response:
        if name not in self._static:
            raise HTTPException(404)
        kind = _KINDS[name.rpartition(".")[2]]
        return Response(self._static[name], media_type=kind, headers=_ASKED_AGAIN)

    async def _overview(self, request: Request) -> Response:
        return JSONResponse(self._library.overview(), headers=_ASKED_AGAIN)

    async def _details(self, request: Request) -> Response:
        (slide,) = _numbers(request, "slide")
        details = await self._made(request, lambda: self._library.details(slide))
        return JSONResponse(details, headers=_ASKED_AGAIN)

    async def _thumbnail(self, request: Request) -> Response:
        (slide,) = _numbers(request, "slide")
        return await self._picture(request, "jpeg", lambda: self._library.thumbnail(slide))

    async def _slide_tile(self, request: Request) -> Response:
        slide, *place = _numbers(request, "slide", "level", "x", "y")
        return await self._picture(
            request, "jpeg", lambda: self._library.slide_tile(slide, TilePlace(*place))
        )

    async def _layer_tile(self, request: Request) -> Response:
        slide, layer, plane, *place = _numbers(
            request, "slide", "layer", "plane", "level", "x", "y"
        )
        return await self._picture(
            request, "png", lambda: self._library.layer_tile(slide, layer, plane, TilePlace(*place))
        )

    async def _objects(self, request: Request) -> Response:
        slide, layer = _numbers(request, "slide", "layer")
        state = await self._made(request, lambda: self._library.open(slide).objects(layer).state())
        return JSONResponse(state, headers=_ASKED_AGAIN)

    async def _object(self, request: Request) -> Response:
        slide, layer, x, y = _numbers(request, "slide", "layer", "x", "y")
        found = await self._made(request, lambda: self._library.open(slide).objects(layer).at(x, y))
        return JSONResponse(found, headers=_ASKED_AGAIN)

    async def _outline_tile(self, request: Request) -> Response:
        slide, layer, *place = _numbers(request, "slide", "layer", "level", "x", "y")
        lines = await self._made(
            request, lambda: self._library.outline_tile(slide, layer, TilePlace(*place))
        )
        return Response(lines, media_type="application/octet-stream", headers=_KEPT)

    async def _picture(self, request: Request, kind: str, make: Callable[[], bytes]) -> Response:
        picture = await self._made(request, make)
        return Response(picture, media_type=f"image/{kind}", headers=_KEPT)

    async def _made(self, request: Request, make: Callable[[], Made]) -> Made:
        """What ``make`` gives in a thread, unless the browser has given the request up before."""
        async with self._free:
            if await request.is_disconnected():
                raise HTTPException(_GONE)
            return await asyncio.get_running_loop().run_in_executor(self._pool, make)


def _read_static() -> dict[str, bytes]:
    """The files of the page, all in memory: no request leads to a path."""
    folder = files("genselfdiff.viewer") / "static"
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def _numbers(request: Request, *names: str) -> list[int]:
    values = [request.path_params[name] for name in names]
    if not all(_NUMBER.fullmatch(value) for value in values):
        raise HTTPException(404)
    return [int(value) for value in values]


async def _missing(request: Request, error: Exception) -> Response:
    return PlainTextResponse("There is no such thing.", 404)


async def _unreadable(request: Request, error: Exception) -> Response:
    return PlainTextResponse(one_line(error), 422, headers=_ASKED_AGAIN)
