"""What the page asks of corrections, and how it is answered."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from genselfdiff.errors import GsdError, InputError, one_line
from genselfdiff.slides.fingerprint import fingerprint
from genselfdiff.storage.places import Url
from genselfdiff.text import counted, shown
from genselfdiff.viewer.answering import (
    ASKED_AGAIN,
    Part,
    body_of,
    made,
    numbers,
    sent,
)
from genselfdiff.viewer.corrections.actions import STROKES
from genselfdiff.viewer.corrections.beginnings import (
    Mask,
    NotPredicted,
    Predicted,
    classes_of,
    coloured,
    of_mask,
    read_annotations,
)
from genselfdiff.viewer.corrections.field_labels import Box, Int32, Uint8
from genselfdiff.viewer.corrections.folder import (
    Corrections,
    DrawnClass,
    DrawnSlide,
    Stale,
    new_name,
)
from genselfdiff.viewer.corrections.results import write_results
from genselfdiff.viewer.library import Library
from genselfdiff.viewer.tiles import png

NAME = "corrections"

Begun = tuple[Uint8, Int32]

_MOST_SENT = 2**20
_MOST_GEOJSON = 2**26
"""Bytes that are taken of a stroke, and of a file."""


def corrections_part(
    library: Library, folder: Path, predicted: Callable[[int, int], Predicted] | None = None
) -> Part:
    """Make the part of the server with which people draw.

    ============================================ ==================================================
    ``/corrections``                             the folder
    ``/corrections/N``                           what is drawn on a slide: fields, classes; a POST
                                                 does something, see ``actions.action_of``, or has
                                                 202 for an answer: not yet, ask again
    ``/corrections/N/fields/NAME/X/Y/W/H``       PNG of a box of a field: ``FieldLabels.picture``
    ``/corrections/N/classes``                   a POST adds one
    ``/corrections/N/geojson``                   a POST of a file adds its fields; 202 as above
    ``/corrections/results``                     a POST writes them
    ============================================ ==================================================

    Args:
        library: the slides.
        folder: where corrections are kept; made when the first is.
        predicted: gives what is predicted, of a slide and by a model, both by their numbers; it
            raises LookupError where there is none.

    Raises:
        InputError: what is there cannot be read.
    """
    return Part(NAME, _Answers(library, Corrections(folder), predicted).routes())


class _Answers:
    def __init__(
        self,
        library: Library,
        corrections: Corrections,
        predicted: Callable[[int, int], Predicted] | None,
    ) -> None:
        self._library = library
        self._predicted = predicted
        self._corrections = corrections
        self._slides: dict[int, DrawnSlide] = {}
        self._writing = Lock()

    def routes(self) -> list[Route]:
        slide = f"/{NAME}/{{slide}}"
        return [
            Route(f"/{NAME}", self._folder),
            Route(f"/{NAME}/results", self._write, methods=["POST"]),
            Route(slide, self._state),
            Route(slide, self._do, methods=["POST"]),
            Route(f"{slide}/classes", self._add_class, methods=["POST"]),
            Route(f"{slide}/geojson", self._read_geojson, methods=["POST"]),
            Route(f"{slide}/fields/{{field}}/{{x}}/{{y}}/{{width}}/{{height}}", self._picture),
        ]

    async def _folder(self, request: Request) -> Response:
        return JSONResponse(
            {"folder": shown(self._corrections.folder.absolute())}, headers=ASKED_AGAIN
        )

    async def _state(self, request: Request) -> Response:
        (number,) = numbers(request, "slide")
        return JSONResponse(await made(request, lambda: self._told(number)), headers=ASKED_AGAIN)

    async def _do(self, request: Request) -> Response:
        (number,) = numbers(request, "slide")
        content = await sent(request, _MOST_SENT)
        return await _answered(request, lambda: self._done(number, content))

    async def _add_class(self, request: Request) -> Response:
        (number,) = numbers(request, "slide")
        content = await sent(request, _MOST_SENT)

        def add() -> dict[str, Any]:
            slide, suggested = self._slide(number), self._suggested(number)
            self._corrections.add_class(slide, content.get("name"), suggested)
            return self._told(number)

        return await _answered(request, add)

    async def _read_geojson(self, request: Request) -> Response:
        (number,) = numbers(request, "slide")
        if request.headers.get("content-type") != "application/geo+json":
            raise HTTPException(415)
        content = await body_of(request, _MOST_GEOJSON)
        told = {k: int(v) for k, v in request.query_params.items() if v.isdecimal() and len(v) < 19}
        return await _answered(request, lambda: self._taken_in(number, content, told))

    async def _picture(self, request: Request) -> Response:
        number, *place = numbers(request, "slide", "x", "y", "width", "height")
        field = request.path_params["field"]

        def draw() -> bytes:
            slide = self._slide(number)
            return png(self._corrections.picture(slide, field, Box(*place)))

        picture = await made(request, draw)
        return Response(picture, media_type="image/png", headers=ASKED_AGAIN)

    async def _write(self, request: Request) -> Response:
        await sent(request, _MOST_SENT)

        def write() -> dict[str, Any]:
            with self._writing:
                places = [entry.slide for entry in self._library.entries]
                written = write_results(self._corrections, places, progress=False)
            return {"told": shown(written.summary(), keep="\n")}

        return await _answered(request, write)

    def _slide(self, number: int) -> DrawnSlide:
        if number not in self._slides:
            opened = self._library.open(number)
            slide, place = opened.tiles.slide, self._library.entries[number].slide
            self._slides[number] = DrawnSlide(
                fingerprint(place),
                place.name,
                str(place) if isinstance(place, Url) else str(place.absolute()),
                slide.width,
                slide.height,
                opened.mpp,
                self._library.icc,
            )
        return self._corrections.find(self._slides[number])

    def _suggested(self, number: int) -> list[DrawnClass]:
        layers: list[Mask] = [
            layer for layer in self._library.open(number).layers if layer.kind == "mask"
        ]
        if not layers and self._predicted is not None:
            with suppress(InputError, LookupError, NotPredicted):  # the model is not read yet
                layers = [self._predicted(number, 0)]
        return classes_of(layers[0]) if layers else []

    def _told(self, number: int) -> dict[str, Any]:
        classes = self._corrections.classes(self._suggested(number))
        return self._corrections.state(self._slide(number)) | {
            "classes": [{"name": each.name, "colour": each.colour} for each in classes],
        }

    def _done(self, number: int, content: dict[str, Any]) -> dict[str, Any]:
        slide, suggested = self._slide(number), self._suggested(number)
        kind = content.get("kind")
        if kind in ("undo", "redo"):
            changed = self._corrections.step(slide, kind, content.get("version"))
        elif kind == "field" and not content.keys().isdisjoint(("layer", "model")):
            start = self._start(number, self._mask(number, content))
            changed = self._corrections.do(slide, content, suggested, start)
        elif kind in ("field", "remove", *STROKES):
            changed = self._corrections.do(slide, content, suggested)
        else:
            raise InputError("that cannot be done")
        told = self._told(number)
        if changed is not None:
            field, box = changed
            told["changed"] = {"field": field, "box": [box.x, box.y, box.width, box.height]}
        return told

    def _mask(self, number: int, content: dict[str, Any]) -> Mask:
        """What a field shall begin as."""
        kind = "model" if "model" in content else "layer"
        index = content[kind]
        if type(index) is int and index >= 0:
            with suppress(LookupError):
                if kind == "model" and self._predicted is not None:
                    return self._predicted(number, index)
                if kind == "layer":
                    layer = self._library.open(number).layers[index]
                    if layer.kind == "mask":
                        return layer
        raise InputError("there is no such mask")

    def _start(self, number: int, mask: Mask) -> Callable[[Box], Begun]:
        """What gives the beginning of a field as a mask shows it."""
        slide, suggested = self._slide(number), self._suggested(number)

        def start(box: Box) -> Begun:
            labels, objects = of_mask(mask, box)
            there = sorted(set(labels.ravel().tolist()) - {0})
            named = classes_of(mask)
            if there and there[-1] >= len(named):
                raise InputError(f"the mask tells no name of its class {there[-1]}")
            wanted = [named[label] for label in there]
            indices = np.zeros(256, np.uint8)
            indices[there] = self._corrections.labels_of(slide, wanted, suggested)
            return indices[labels], objects

        return start

    def _taken_in(self, number: int, content: bytes, told: dict[str, int]) -> dict[str, Any]:
        """Frame the fields of annotations, with what is drawn there.

        Where nothing is, as in those of ``gsd suggest``, they begin as the page has ``told``.
        """
        slide, suggested = self._slide(number), self._suggested(number)
        found = read_annotations(content)
        boxes = found.boxes(slide.width, slide.height)
        is_told = not found.is_drawn and not told.keys().isdisjoint(("layer", "model"))
        begins = self._start(number, self._mask(number, told)) if is_told else None
        if is_told and "model" in told and self._predicted is not None:
            free = [box for box, _ in boxes if self._corrections.has_room(slide, box)]
            self._predicted(number, told["model"]).expect(free)
        wanted = coloured(found.classes)
        of_wanted = self._corrections.labels_of(slide, wanted, suggested)
        indices = dict(zip(found.classes, of_wanted, strict=True))
        refused = []
        for box, field in boxes:
            action = {"id": new_name(), "kind": "field", **asdict(box)}
            start = begins or partial(found.labels, field=field, indices=indices)
            try:
                self._corrections.do(slide, action, suggested, start)
            except InputError as error:
                refused.append(f"{box.x}, {box.y}: {error}")
        outside = len(found.fields) - len(boxes)
        lines = [
            counted(len(boxes) - len(refused), "field") + " read",
            *([f"{outside} outside of the slide"] if outside else []),
            *refused,
            *([found.left_out] if found.left_out else []),
        ]
        return self._told(number) | {"told": shown("; ".join(lines))}


async def _answered(request: Request, make: Callable[[], dict[str, Any]]) -> Response:
    """What was done, that the page shall ask again in a moment, or why it cannot be done."""
    try:
        return JSONResponse(await made(request, make), headers=ASKED_AGAIN)
    except NotPredicted:
        return JSONResponse({"waits": True}, 202, headers=ASKED_AGAIN)
    except Stale:
        told = "Something was drawn here meanwhile, from another page. It is shown now."
        return PlainTextResponse(told, 409, headers=ASKED_AGAIN)
    except GsdError as error:
        return PlainTextResponse(one_line(error), 422, headers=ASKED_AGAIN)
