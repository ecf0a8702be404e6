"""What the page asks of jobs: to begin, to stop, and how far they are."""

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from genselfdiff.live.blocks import Picture
from genselfdiff.live.jobs.segmenting import Segmenting
from genselfdiff.live.jobs.training import Training
from genselfdiff.viewer.answering import ASKED_AGAIN, Part, made, numbers, sent, whole_numbers

_MOST_BYTES = 200


def jobs_part(segmenting: Segmenting, training: Training | None) -> Part:
    """Plug jobs into the server.

    What is run is decided by the command line of ``gsd view``: the page names slides and models
    by their numbers.

    ======================================== ===================================================
    ``/jobs/segment/SLIDE``                  how far each model's mask of a slide is
    ``/jobs/segment``                        POST {"slide", "model", "do": "start" or "stop"}
    ``/jobs/train``                          the last run; POST {"do": "start", "go on" or "stop"}
    ======================================== ===================================================

    Args:
        segmenting: makes masks.
        training: makes models; None: there is nothing to learn from.
    """
    return Part("jobs", _Jobs(segmenting, training).routes())


class _Jobs:
    def __init__(self, segmenting: Segmenting, training: Training | None) -> None:
        self._segmenting, self._training = segmenting, training

    def routes(self) -> list[Route]:
        return [
            Route("/jobs/segment", self._segment, methods=["POST"]),
            Route("/jobs/segment/{slide}", self._segmented),
            Route("/jobs/train", self._train, methods=["POST"]),
            Route("/jobs/train", self._trained),
        ]

    async def _segmented(self, request: Request) -> Response:
        (slide,) = numbers(request, "slide")
        told = await made(request, lambda: self._segmenting.told(slide))
        return JSONResponse(told, headers=ASKED_AGAIN)

    async def _segment(self, request: Request) -> Response:
        told = await sent(request, _MOST_BYTES)
        slide, model = whole_numbers([told.get("slide"), told.get("model")])
        picture = Picture(model, slide)
        act = {"start": self._segmenting.start, "stop": self._segmenting.stop}.get(
            str(told.get("do"))
        )
        if act is None:
            raise HTTPException(422)
        await made(request, lambda: act(picture))
        return JSONResponse({}, headers=ASKED_AGAIN)

    async def _trained(self, request: Request) -> Response:
        training = self._training
        told: dict[str, Any] | None = None
        if training is not None:
            told = await made(request, training.told)
        return JSONResponse(told, headers=ASKED_AGAIN)

    async def _train(self, request: Request) -> Response:
        training, told = self._training, await sent(request, _MOST_BYTES)
        if training is None:
            raise HTTPException(404)
        acts = {"start": training.start, "go on": training.go_on, "stop": training.stop}
        act = acts.get(str(told.get("do")))
        if act is None:
            raise HTTPException(422)
        await made(request, act)
        return JSONResponse({}, headers=ASKED_AGAIN)
