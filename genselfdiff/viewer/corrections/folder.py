"""A folder of corrections: a journal of what was drawn on any slide, and what fields begin with."""

import logging
import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple

import numpy as np

from genselfdiff.data.importers.qupath import is_ignored
from genselfdiff.data.labelled_folder import IGNORED
from genselfdiff.errors import InputError
from genselfdiff.files import writing
from genselfdiff.slides.discovery import CORRECTIONS_JOURNAL
from genselfdiff.text import counted, shown
from genselfdiff.viewer.corrections.actions import Action, SlideActions, action_of, start_path
from genselfdiff.viewer.corrections.field_labels import Box, FieldLabels, Int32, Uint8, write_start
from genselfdiff.viewer.corrections.journal import Journal, Record, read_journal
from genselfdiff.viewer.layers import Colour, colour_of

logger = logging.getLogger("genselfdiff")

BACKGROUND = "background"

STARTS = "starts"
"""What fields began with, beside it."""

_LONGEST_NAME = 100
"""Characters of a class's name."""


class Stale(Exception):
    """Something was done on the slide meanwhile, from another page."""


class DrawnClass(NamedTuple):
    """A class that can be drawn."""

    name: str
    colour: Colour


class DrawnSlide(NamedTuple):
    """A slide that is drawn on.

    Attributes:
        key: its fingerprint.
        name: of its file.
        place: its path or URL, as it was when it was drawn on.
        width, height: in pixels.
        mpp: micrometres per pixel; None: unknown.
        icc: its colours were seen as its ICC profile means them.
    """

    key: str
    name: str
    place: str
    width: int
    height: int
    mpp: float | None
    icc: bool = False


@dataclass
class _Known:
    slide: DrawnSlide
    actions: SlideActions


class Corrections:
    """What is drawn, by slide; threads may use it at once.

    Nothing is written before something is done. Processes read the same folder at once, but only
    the first one that does something in it can do more.

    Args:
        folder: need not be there.

    Raises:
        InputError: the journal cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = folder / CORRECTIONS_JOURNAL
        self._starts = folder / STARTS
        self._lock = RLock()
        self._open: Journal | None = None
        self._read = 0
        self._refresh()

    def classes(self, suggested: Sequence[DrawnClass] = ()) -> list[DrawnClass]:
        """The classes by their index; before anything was done those of a mask, if there is one."""
        with self._lock:
            return list(self._classes or suggested or [DrawnClass(BACKGROUND, (255, 255, 255))])

    def slides(self) -> list[DrawnSlide]:
        """The slides that were drawn on."""
        with self._lock:
            self._refresh()
            return [known.slide for known in self._slides.values()]

    def fields(self, slide: DrawnSlide) -> dict[str, Box]:
        """The fields of a slide by their names."""
        with self._lock:
            return dict(self._of(slide).actions.fields())

    def has_room(self, slide: DrawnSlide, box: Box) -> bool:
        """Whether a field can be framed there."""
        with self._lock:
            self._refresh()
            try:
                self._of(slide).actions.check(Action("", "field", "", box))
            except InputError:
                return False
            return True

    def labels(self, slide: DrawnSlide, field: str) -> FieldLabels:
        """A copy of what is drawn in a field.

        Raises:
            InputError, LookupError: as `SlideActions.labels`, or a file has been tampered with.
        """
        with self._lock:
            labels = self._of(slide).actions.labels(field)
            others = np.setdiff1d(labels.labels, [*range(len(self._classes)), IGNORED])
            if others.size:
                raise InputError(f"{self.folder}: there is no class {others[0]}")
            return FieldLabels(labels.field, labels.labels.copy(), labels.objects.copy())

    def picture(self, slide: DrawnSlide, field: str, box: Box) -> Uint8:
        """See `FieldLabels.picture`.

        Raises:
            InputError, LookupError: as `SlideActions.labels`, or the box leaves the field.
        """
        with self._lock:
            labels = self._of(slide).actions.labels(field)
            if not box.within(labels.field.width, labels.field.height):
                raise LookupError("no such box")
            return labels.picture(box)

    def state(self, slide: DrawnSlide) -> dict[str, Any]:
        """Tell what is drawn on a slide, but for the pixels."""
        with self._lock:
            self._refresh()
            actions = self._of(slide).actions
            return {
                "version": actions.version,
                "fields": [
                    {"id": name, "x": box.x, "y": box.y, "width": box.width, "height": box.height}
                    for name, box in actions.fields().items()
                ],
                "undo": actions.last is not None,
                "redo": actions.next is not None,
            }

    def do(
        self,
        slide: DrawnSlide,
        content: Any,
        suggested: Sequence[DrawnClass] = (),
        start: Callable[[Box], tuple[Uint8, Int32]] | None = None,
    ) -> tuple[str, Box] | None:
        """Do what was sent; return the field, and the box in it that is another now.

        What was done before, by its name, is not done again.

        Args:
            slide: on which.
            content: see `action_of`.
            suggested: see `classes`.
            start: gives classes and objects that a field begins with.

        Raises:
            InputError: it cannot be done.
            OutputError: it cannot be written.
        """
        action = action_of({**content, "start": start is not None})
        record = action.record()
        with self._lock:
            self._begin(slide, suggested)
            actions = self._of(slide).actions
            if actions.knows(action.name):
                return None
            self._require_class(record)
            actions.check(action)
            if start is not None and action.box is not None:
                with writing(self._starts):
                    self._starts.mkdir(exist_ok=True)
                write_start(start_path(self._starts, action.name), *start(action.box))
            return _told(action, actions.do(action, lambda: self._note(slide, "do", record)))

    def step(self, slide: DrawnSlide, op: str, version: Any) -> tuple[str, Box] | None:
        """Undo or redo; return as `do`.

        Args:
            slide: on which.
            op: "undo" or "redo".
            version: of what the page shows.

        Raises:
            InputError: there is nothing to undo or redo.
            Stale: another version is there.
            OutputError: it cannot be written.
        """
        with self._lock:
            self._begin(slide, ())
            actions = self._of(slide).actions
            if actions.version != version:
                raise Stale
            name = actions.last if op == "undo" else actions.next
            if name is None:
                raise InputError(f"there is nothing to {op}")
            step = actions.undo if op == "undo" else actions.redo
            return _told(*step(lambda: self._note(slide, op, {"id": name})))

    def labels_of(
        self, slide: DrawnSlide, named: Iterable[DrawnClass], suggested: Sequence[DrawnClass] = ()
    ) -> list[int]:
        """Indices of classes, which are added where there are none of that name.

        Raises:
            InputError: a name cannot be that of a class.
            OutputError: they cannot be written.
        """
        with self._lock:
            self._begin(slide, suggested)
            for each in named:
                self._add_class(each.name, each.colour)
            indices = {known.name: index for index, known in enumerate(self._classes)}
            return [indices[each.name] for each in named]

    def add_class(self, slide: DrawnSlide, name: Any, suggested: Sequence[DrawnClass] = ()) -> None:
        """Add a class of that name, if there is none.

        Raises:
            InputError, OutputError: as `labels_of`.
        """
        with self._lock:
            self._begin(slide, suggested)
            self._add_class(name.strip() if isinstance(name, str) else name, None)

    def find(self, slide: DrawnSlide) -> DrawnSlide:
        """The slide as it is known here: one that was moved may have another fingerprint."""
        with self._lock:
            if slide.key in self._slides:
                return slide
            same = (slide.name, slide.width, slide.height)
            for known in self._slides.values():
                other = known.slide
                if (other.name, other.width, other.height) == same and (
                    other.place == slide.place or not os.path.exists(other.place)
                ):
                    return slide._replace(key=other.key)
            return slide

    def _of(self, slide: DrawnSlide) -> _Known:
        if slide.key in self._slides:
            return self._slides[slide.key]
        return _Known(slide, SlideActions(self._starts, slide.width, slide.height))

    def _begin(self, slide: DrawnSlide, suggested: Sequence[DrawnClass]) -> None:
        """Make sure that the journal can be written to, and knows the classes and the slide."""
        if self._open is None:
            self._open = Journal(self.journal)
            self._load(self._open.records)
        if not self._classes:
            for each in self.classes(suggested):
                self._add_class(each.name, each.colour)
        known = self._slides.get(slide.key)
        if known is None or known.slide != slide:
            record = {"op": "slide", **slide._asdict()}
            self._open.append(record)
            self._take(record)

    def _note(self, slide: DrawnSlide, op: str, content: Record) -> None:
        assert self._open is not None
        self._open.append({**content, "op": op, "slide": slide.key})

    def _require_class(self, content: Record) -> None:
        if content.get("label", 0) not in (*range(len(self._classes)), IGNORED):
            raise InputError("there is no such class")

    def _add_class(self, name: Any, colour: Colour | None) -> None:
        if any(known.name == name for known in self._classes):
            return
        if not isinstance(name, str) or not name.strip() or len(name) > _LONGEST_NAME:
            raise InputError(f"a class needs a name of 1 to {_LONGEST_NAME} characters")
        if shown(name) != name or is_ignored(name):
            raise InputError(
                f"{shown(name)}: a class's name has no hidden characters, and does not end in *"
            )
        if len(self._classes) >= IGNORED:
            raise InputError(f"there are {IGNORED} classes already")
        assert self._open is not None
        record = {
            "op": "class",
            "name": name,
            "colour": colour or colour_of(len(self._classes)),
        }
        self._open.append(record)
        self._take(record)

    def _refresh(self) -> None:
        """Read what another process has written; nothing while this one writes."""
        if self._open is not None:
            return
        size = self.journal.stat().st_size if self.journal.exists() else 0
        if size != self._read or not size:
            self._read = size
            self._load(read_journal(self.journal))

    def _load(self, records: Iterable[Record]) -> None:
        self._classes: list[DrawnClass] = []
        self._slides: dict[str, _Known] = {}
        lost = 0
        for record in records:
            try:
                self._take(record)
            except (InputError, KeyError, TypeError, ValueError):
                lost += 1
        if lost:
            logger.warning("%s: left out: %s of no meaning", self.journal, counted(lost, "record"))

    def _take(self, record: Record) -> None:
        """Take a record of the journal, or raise what is wrong with it."""
        if record["op"] == "class":
            red, green, blue = (min(max(int(value), 0), 255) for value in record["colour"])
            self._classes.append(DrawnClass(shown(str(record["name"])), (red, green, blue)))
        elif record["op"] == "slide":
            slide = _slide_of(record)
            known = self._slides.get(slide.key)
            size = slide.width, slide.height
            actions = SlideActions(self._starts, *size) if known is None else known.actions
            self._slides[slide.key] = _Known(slide, actions)
        else:
            self._require_class(record)
            self._slides[record["slide"]].actions.replay(record)


def new_name() -> str:
    """A name for an action."""
    return secrets.token_hex(8)


def _told(action: Action, changed: Box | None) -> tuple[str, Box] | None:
    return None if changed is None else (action.field, changed)


def _slide_of(record: Record) -> DrawnSlide:
    mpp = record["mpp"]
    return DrawnSlide(
        str(record["key"]),
        str(record["name"]),
        str(record["place"]),
        int(record["width"]),
        int(record["height"]),
        None if mpp is None else float(mpp),
        record.get("icc") is True,
    )
