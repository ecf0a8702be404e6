"""What was done on a slide, one thing after the other, and what is there now."""

import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from genselfdiff.errors import InputError
from genselfdiff.viewer.corrections.field_labels import MOST_PIXELS, Box, FieldLabels, read_start
from genselfdiff.viewer.corrections.strokes import Stroke, stroke_of

STROKES = ("brush", "polygon", "object")

_NAME = re.compile("[0-9a-f]{16,32}")

_HELD = 6
"""Fields of a slide whose pixels are in memory; of others they are drawn anew when asked for."""


class Action(NamedTuple):
    """Something that was done, and can be undone.

    Attributes:
        name: hexadecimal digits that nothing else has.
        kind: "field", which is framed; "remove", a field; or the kind of a stroke.
        field: name of the field, which is that of the action that has framed it.
        box: of a field that is framed.
        has_start: a file says what the field begins with.
        stroke: what was drawn.
    """

    name: str
    kind: str
    field: str
    box: Box | None = None
    has_start: bool = False
    stroke: Stroke | None = None

    def record(self) -> dict[str, Any]:
        """What `action_of` makes the same action of."""
        told: dict[str, Any] = {"id": self.name, "kind": self.kind}
        if self.box is not None:
            return told | asdict(self.box) | {"start": self.has_start}
        told["field"] = self.field
        return told if self.stroke is None else told | self.stroke.record()


def action_of(content: Any) -> Action:
    """Make an action of what was sent, or stands in a journal.

    Raises:
        InputError: it is none.
    """
    name, kind = name_of(content.get("id")), content.get("kind")
    if kind == "field":
        sides = [content.get(side) for side in ("x", "y", "width", "height")]
        if not all(type(side) is int and 0 <= side <= 2**31 for side in sides):
            raise InputError("a field is a rectangle of whole pixels")
        return Action(name, kind, name, Box(*sides), content.get("start") is True)
    field = name_of(content.get("field"))
    if kind == "remove":
        return Action(name, kind, field)
    if kind not in STROKES:
        raise InputError("that cannot be done")
    return Action(name, kind, field, stroke=stroke_of(content, kind))


def name_of(content: Any) -> str:
    """Return what can be the name of an action.

    Raises:
        InputError: it cannot.
    """
    if not isinstance(content, str) or _NAME.fullmatch(content) is None:
        raise InputError("an action is named by hexadecimal digits")
    return content


class SlideActions:
    """All that was done on a slide.

    Args:
        starts: folder of the files with what fields begin with.
        width, height: of the slide.

    Attributes:
        version: how often something was done, undone or done again.
    """

    def __init__(self, starts: Path, width: int, height: int) -> None:
        self.version = 0
        self.width, self.height = width, height
        self._starts = starts
        self._done: list[Action] = []
        self._undone: list[Action] = []
        self._names: set[str] = set()
        self._labels: OrderedDict[str, FieldLabels] = OrderedDict()
        self._there: dict[str, Box] | None = None

    def knows(self, name: str) -> bool:
        """Whether the action of that name was done here."""
        return name in self._names

    @property
    def last(self) -> str | None:
        """Name of what can be undone."""
        return self._done[-1].name if self._done else None

    @property
    def next(self) -> str | None:
        """Name of what can be done again."""
        return self._undone[-1].name if self._undone else None

    def fields(self) -> dict[str, Box]:
        """The fields that are there, by their names."""
        if self._there is None:
            self._there = {}
            for action in self._done:
                if action.box is not None:
                    self._there[action.name] = action.box
                elif action.kind == "remove":
                    self._there.pop(action.field, None)
        return self._there

    def check(self, action: Action) -> None:
        """Raise InputError where something cannot be done now."""
        fields = self.fields()
        if action.name in self._names:
            raise InputError("that was done before")
        if action.box is None:
            if action.field not in fields:
                raise InputError("the field is not there any more")
            return
        if not action.box.within(self.width, self.height):
            raise InputError("the field does not lie in the slide")
        if action.box.width * action.box.height > MOST_PIXELS:
            raise InputError(
                f"the field has {action.box.width} x {action.box.height} pixels; at most"
                f" {MOST_PIXELS / 1e6:.1f} million can be drawn in: frame several"
            )
        if any(action.box.meets(box) for box in fields.values()):
            raise InputError("the field lies over another: frame it beside that")

    def do(self, action: Action, record: Callable[[], None]) -> Box | None:
        """Do something; return the box, in pixels of its field, that a stroke has changed.

        Args:
            action: what.
            record: makes it last; what it raises leaves all as it was.

        Raises:
            InputError: as `check`, or the stroke cannot be drawn.
        """
        self.check(action)
        changed = self._draw(action, record)
        self._add(action)
        self._undone.clear()
        return changed

    def undo(self, record: Callable[[], None]) -> tuple[Action, Box | None]:
        """Undo the last thing that was done; return it, and as `do`."""
        record()
        action = self._remove()
        held = self._labels.get(action.field)
        return action, None if held is None or action.stroke is None else held.take_back()

    def redo(self, record: Callable[[], None]) -> tuple[Action, Box | None]:
        """Do again what was undone last; return it, and as `do`."""
        changed = self._draw(self._undone[-1], record)
        action = self._undone.pop()
        self._add(action)
        return action, changed

    def replay(self, record: dict[str, Any]) -> None:
        """Take a record of the journal, whose pixels are drawn when they are asked for.

        Raises:
            InputError: it does not follow from those before it.
        """
        if record.get("op") == "do":
            action = action_of(record)
            self.check(action)
            self._add(action)
            self._undone.clear()
        elif record.get("op") == "undo" and record.get("id") == self.last is not None:
            self._remove()
        elif record.get("op") == "redo" and record.get("id") == self.next is not None:
            self._add(self._undone.pop())
        else:
            raise InputError("does not follow from what was done before")

    def labels(self, field: str) -> FieldLabels:
        """The labels of a field that is there.

        Raises:
            InputError: what it begins with cannot be read.
            LookupError: there is no such field.
        """
        if field not in self.fields():
            raise LookupError(field)
        if field not in self._labels:
            self._labels[field] = self._drawn(field)
            if len(self._labels) > _HELD:
                self._labels.popitem(last=False)
        self._labels.move_to_end(field)
        return self._labels[field]

    def _draw(self, action: Action, record: Callable[[], None]) -> Box | None:
        if action.stroke is None:
            record()
            return None
        labels = self.labels(action.field)
        changed = labels.draw(action.stroke)
        try:
            record()
        except BaseException:
            labels.take_back()
            raise
        return changed

    def _add(self, action: Action) -> None:
        self._done.append(action)
        self._names.add(action.name)
        self._changed(action)

    def _remove(self) -> Action:
        action = self._done.pop()
        self._undone.append(action)
        self._changed(action)
        return action

    def _changed(self, action: Action) -> None:
        self.version += 1
        if action.stroke is None:
            self._there = None

    def _drawn(self, field: str) -> FieldLabels:
        frame = next(action for action in self._done if action.name == field)
        assert frame.box is not None
        begun = read_start(start_path(self._starts, field), frame.box) if frame.has_start else ()
        labels = FieldLabels(frame.box, *begun)
        for action in self._done:
            if action.field == field and action.stroke is not None:
                labels.draw(action.stroke)
        return labels


def start_path(starts: Path, field: str) -> Path:
    """The file of what a field begins with."""
    return starts / f"{field}.png"
