"""The server of the page: which request is answered with what."""

from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from genselfdiff.errors import InputError, one_line
from genselfdiff.viewer.answering import ASKED_AGAIN, Part, Workers, made, numbers
from genselfdiff.viewer.library import Library
from genselfdiff.viewer.tiles import NoTile, TilePlace

_KINDS = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "txt": "text/plain; charset=utf-8",
}

_KEPT = {"Cache-Control": "private, max-age=86400, immutable"}
"""Of tiles: their address holds the token, which is another for every server."""


def viewer_app(library: Library, parts: Sequence[Part] = ()) -> Starlette:
    """Make the ASGI application that serves the page, its data and its tiles.

    ======================================== ===================================================
    ``/``, ``/static/NAME``                  the page and what belongs to it
    ``/parts``                               names of what is plugged in
    ``/NAME/...``                            what is answered for it
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
        parts: what is plugged in.
    """
    return _Server(library, parts).app()


class _Server:
    def __init__(self, library: Library, parts: Sequence[Part]) -> None:
        self._library = library
        self._parts = parts
        self._static = dict(_files_in(files("genselfdiff.viewer") / "static"))

    def app(self) -> Starlette:
        slide, place = "/slides/{slide}", "{level}/{x}/{y}"
        objects = f"{slide}/objects/{{layer}}"
        app = Starlette(
            routes=[
                Route("/", self._page),
                Route("/static/{name:path}", self._file),
                Route("/parts", self._plugged),
                Route("/slides", self._overview),
                Route(slide, self._details),
                Route(f"{slide}/thumbnail", self._thumbnail),
                Route(f"{slide}/tiles/{place}", self._slide_tile),
                Route(f"{slide}/layers/{{layer}}/{{plane}}/{place}", self._layer_tile),
                Route(objects, self._objects),
                Route(f"{objects}/at/{{x}}/{{y}}", self._object),
                Route(f"{objects}/{place}", self._outline_tile),
                *(route for part in self._parts for route in part.routes),
            ],
            exception_handlers={
                InputError: _unreadable,
                OSError: _unreadable,
                NoTile: _missing,
                LookupError: _missing,
            },
        )
        app.state.workers = Workers()
        return app

    async def _page(self, request: Request) -> Response:
        return self._static_file("index.html")

    async def _file(self, request: Request) -> Response:
        return self._static_file(request.path_params["name"])

    def _static_file(self, name: str) -> Response:
        if name not in self._static:
            raise HTTPException(404)
        kind = _KINDS[name.rpartition(".")[2]]
        return Response(self._static[name], media_type=kind, headers=ASKED_AGAIN)

    async def _plugged(self, request: Request) -> Response:
        return JSONResponse([part.name for part in self._parts], headers=ASKED_AGAIN)

    async def _overview(self, request: Request) -> Response:
        return JSONResponse(self._library.overview(), headers=ASKED_AGAIN)

    async def _details(self, request: Request) -> Response:
        (slide,) = numbers(request, "slide")
        details = await made(request, lambda: self._library.details(slide))
        return JSONResponse(details, headers=ASKED_AGAIN)

    async def _thumbnail(self, request: Request) -> Response:
        (slide,) = numbers(request, "slide")
        return await self._picture(request, "jpeg", lambda: self._library.thumbnail(slide))

    async def _slide_tile(self, request: Request) -> Response:
        slide, *place = numbers(request, "slide", "level", "x", "y")
        return await self._picture(
            request, "jpeg", lambda: self._library.slide_tile(slide, TilePlace(*place))
        )

    async def _layer_tile(self, request: Request) -> Response:
        slide, layer, plane, *place = numbers(request, "slide", "layer", "plane", "level", "x", "y")
        return await self._picture(
            request, "png", lambda: self._library.layer_tile(slide, layer, plane, TilePlace(*place))
        )

    async def _objects(self, request: Request) -> Response:
        slide, layer = numbers(request, "slide", "layer")
        state = await made(request, lambda: self._library.open(slide).objects(layer).state())
        return JSONResponse(state, headers=ASKED_AGAIN)

    async def _object(self, request: Request) -> Response:
        slide, layer, x, y = numbers(request, "slide", "layer", "x", "y")
        found = await made(request, lambda: self._library.open(slide).objects(layer).at(x, y))
        return JSONResponse(found, headers=ASKED_AGAIN)

    async def _outline_tile(self, request: Request) -> Response:
        slide, layer, *place = numbers(request, "slide", "layer", "level", "x", "y")
        lines = await made(
            request, lambda: self._library.outline_tile(slide, layer, TilePlace(*place))
        )
        return Response(lines, media_type="application/octet-stream", headers=_KEPT)

    async def _picture(self, request: Request, kind: str, make: Callable[[], bytes]) -> Response:
        picture = await made(request, make)
        return Response(picture, media_type=f"image/{kind}", headers=_KEPT)


def _files_in(folder: Traversable, before: str = "") -> Iterator[tuple[str, bytes]]:
    """The files of the page by name, all in memory: no request leads to a path."""
    for file in folder.iterdir():
        if file.is_dir():
            yield from _files_in(file, f"{before}{file.name}/")
        else:
            yield f"{before}{file.name}", file.read_bytes()


async def _missing(request: Request, error: Exception) -> Response:
    return PlainTextResponse("There is no such thing.", 404)


async def _unreadable(request: Request, error: Exception) -> Response:
    return PlainTextResponse(one_line(error), 422, headers=ASKED_AGAIN)
