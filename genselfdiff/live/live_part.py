"""What the page asks of live predictions."""

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from genselfdiff.live.blocks import COARSEST, Picture, blocks_in
from genselfdiff.live.predictions import Predictions
from genselfdiff.live.views import View
from genselfdiff.viewer.answering import ASKED_AGAIN, Part, made, numbers, sent, whole_numbers
from genselfdiff.viewer.library import Library
from genselfdiff.viewer.tiles import NoTile, TilePlace

_MOST_SECONDS = 20.0
"""Of predicting: a view that would take longer is too large."""
_LEAST_PIXELS = 8e6
"""Of level 0, that are predicted at once however slow the model is: a screen of full size."""

_MOST_PIXELS = 256e6
"""However fast it is: a thousand blocks."""

_MOST_BYTES = 1000


def live_part(library: Library, predictions: Predictions) -> Part:
    """Plug live predictions into the server.

    ======================================== ===================================================
    ``/live``                                the models, and how many levels are shown
    ``/live/look``                           POST: what is on the screen; answers what is known
    ``/live/SLIDE/MODEL/LEVEL/X/Y``          PNG; see ``BlockStore.tile``
    ======================================== ===================================================

    Args:
        library: what is shown.
        predictions: of its slides.
    """
    return Part("live", _Live(library, predictions).routes())


class _Live:
    def __init__(self, library: Library, predictions: Predictions) -> None:
        self._library, self._predictions = library, predictions

    def routes(self) -> list[Route]:
        return [
            Route("/live", self._models),
            Route("/live/look", self._look, methods=["POST"]),
            Route("/live/{slide}/{model}/{level}/{x}/{y}", self._tile),
        ]

    async def _models(self, request: Request) -> Response:
        models = [model.state() for model in self._predictions.models]
        return JSONResponse({"models": models, "coarsest": COARSEST}, headers=ASKED_AGAIN)

    async def _look(self, request: Request) -> Response:
        told = await sent(request, _MOST_BYTES)
        (slide,) = whole_numbers([told.get("slide")])
        models, since, window = (whole_numbers(told.get(n)) for n in ("models", "since", "window"))
        if len(since) != len(models) or len(window) != 4:
            raise HTTPException(422)
        pictures = {Picture(model, slide): n for model, n in zip(models, since, strict=True)}
        x, y, width, height = window
        answer = await made(request, lambda: self._seen(pictures, slide, (x, y, width, height)))
        return JSONResponse(answer, headers=ASKED_AGAIN)

    def _seen(
        self, pictures: dict[Picture, int], slide: int, window: tuple[int, int, int, int]
    ) -> dict[str, Any]:
        """Have predicted what is seen, and tell how far it is."""
        predictions = self._predictions
        if any(picture.model >= len(predictions.models) for picture in pictures):
            raise NoTile
        shown = self._library.open(slide).tiles.slide
        x, y = min(window[0], shown.width - 1), min(window[1], shown.height - 1)
        width = min(max(window[2], 1), shown.width - x)
        height = min(max(window[3], 1), shown.height - y)
        most = min(max(_LEAST_PIXELS, _MOST_SECONDS * predictions.speed), _MOST_PIXELS)
        blocks = blocks_in(x, y, width, height) if width * height <= most else []
        predictions.look(View(tuple(pictures), tuple(blocks)))
        found = []
        for picture, since in pictures.items():
            count, put = predictions.store.put_since(picture, since)
            missing = predictions.store.missing(picture, blocks)
            error = predictions.error(picture)
            found.append({"count": count, "put": put, "missing": len(missing), "error": error})
        told = {"speed": predictions.speed, "seen": width * height, "most": most}
        return told | {"pictures": found}

    async def _tile(self, request: Request) -> Response:
        slide, model, *place = numbers(request, "slide", "model", "level", "x", "y")
        picture, at = Picture(model, slide), TilePlace(*place)
        if at.level > COARSEST or model >= len(self._predictions.models):
            raise NoTile
        tile = await made(request, lambda: self._encoded(picture, at))
        return Response(tile, media_type="image/png", headers=ASKED_AGAIN)

    def _encoded(self, picture: Picture, place: TilePlace) -> bytes:
        slide = self._library.open(picture.slide).tiles.slide
        return self._predictions.store.tile(picture, place, slide.width, slide.height)
