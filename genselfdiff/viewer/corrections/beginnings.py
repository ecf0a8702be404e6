"""What a field begins with: the mask that is shown, or annotations of QuPath."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from genselfdiff.choices import FIELD_CLASS
from genselfdiff.data.importers.classes import BACKGROUND
from genselfdiff.data.importers.geojson import Annotation, read_geojson
from genselfdiff.data.importers.left_out import LeftOut
from genselfdiff.data.importers.qupath import is_ignored
from genselfdiff.data.importers.qupath_fields import Drawing, Window, box_around, draw_field
from genselfdiff.data.labelled_folder import IGNORED
from genselfdiff.data.polygons import Region
from genselfdiff.errors import InputError
from genselfdiff.objects import choose_splitter, number_objects, windows_of
from genselfdiff.viewer.corrections.field_labels import Box, Int32, Uint8
from genselfdiff.viewer.corrections.folder import DrawnClass
from genselfdiff.viewer.layers import Colour, colour_of


class NotPredicted(Exception):
    """What a field shall begin with is being predicted: ask again in a moment."""


class Mask(Protocol):
    """What can be shown over a slide: a mask, or what is predicted; see ``viewer.layers.Layer``."""

    mpp: float | None
    has_cores: bool
    names: list[str]
    colours: list[Colour]

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Uint8:
        """Classes in a window."""

    def cores(self, x: int, y: int, width: int, height: int) -> NDArray[np.bool_]:
        """Where the cores of objects are in a window."""


class Predicted(Mask, Protocol):
    """What a model predicts; reading it raises as ``expect``."""

    def expect(self, boxes: Sequence[Box]) -> None:
        """Have all of some boxes predicted.

        Raises:
            NotPredicted: not all of it is, yet.
            InputError: it never will be.
        """


def of_mask(mask: Mask, box: Box) -> tuple[Uint8, Int32]:
    """The classes of a mask in a field, and the numbers of the objects there.

    Objects that only touch have numbers each where the mask tells their cores. What the cores say
    is none has numbers of its own, so that the field shows what the mask does.

    Raises:
        InputError: the mask cannot be read.
    """
    place = box.x, box.y, box.width, box.height
    labels = mask.read(0, *place).copy()
    cores = windows_of(mask.cores(*place)) if mask.has_cores else None
    splitter = choose_splitter(None, None, mask.mpp, None, cores)
    objects = number_objects(labels, splitter=splitter).numbers
    missed = number_objects(np.where(objects, 0, labels).astype(np.uint8)).numbers
    objects = np.where(missed, missed + objects.max(initial=0), objects).astype(np.int32)
    return labels, objects


def classes_of(mask: Mask) -> list[DrawnClass]:
    """The classes of a mask."""
    return [DrawnClass(*each) for each in zip(mask.names, mask.colours, strict=True)]


@dataclass(frozen=True)
class Annotations:
    """What people have annotated in QuPath on one slide.

    Attributes:
        fields: the annotations that say where fields are.
        classes: names of the others' classes, but for what is ignored or background.
        left_out: what is not used, and why, for people.
    """

    fields: Sequence[Annotation]
    classes: Sequence[str]
    left_out: str
    _drawn: Sequence[Annotation]

    @property
    def is_drawn(self) -> bool:
        """Whether there is more than fields."""
        return bool(self._drawn)

    def boxes(self, width: int, height: int) -> list[tuple[Box, Annotation]]:
        """The fields as rectangles in a slide of that size, without those that are not in it."""
        found = []
        for each in self.fields:
            left, top, right, bottom = box_around(Region(1, each.polygons))
            left, top = max(left, 0), max(top, 0)
            box = Box(left, top, min(right, width) - left, min(bottom, height) - top)
            if box.within(width, height):
                found.append((box, each))
        return found

    def labels(self, box: Box, field: Annotation, indices: dict[str, int]) -> tuple[Uint8, Int32]:
        """Classes in the box of a field, and numbers of objects, as ``gsd data import`` has them.

        Args:
            box: of the field.
            field: what is beside it in the box is ignored.
            indices: of the classes.
        """
        regions = [Region(_label(each.name, indices), each.polygons) for each in self._drawn]
        drawing = Drawing(Path(), Path(), regions)
        within = drawing.within((box.x, box.y, box.x + box.width, box.y + box.height))
        window = Window(1.0, box.x, box.y, box.width, box.height)
        return draw_field(within, Region(1, field.polygons), window)


def read_annotations(content: bytes) -> Annotations:
    """Read GeoJSON as QuPath exports it.

    Raises:
        InputError: it is none, or says of no field where it is.
    """
    left_out = LeftOut()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "annotations.geojson"
        path.write_bytes(content)
        try:
            found = read_geojson(path, left_out).annotations
        except InputError as error:
            raise InputError(str(error).replace(str(path), "the file")) from error
    fields = [each for each in found if each.name == FIELD_CLASS]
    drawn = [each for each in found if each.name != FIELD_CLASS]
    if not fields:
        raise InputError(
            f"the file has no annotation of the class {FIELD_CLASS}, which says where a field is in"
            " which all is annotated: draw such rectangles in QuPath"
        )
    names = sorted({each.name for each in drawn if not is_ignored(each.name)} - {BACKGROUND})
    return Annotations(fields, names, left_out.summary(), drawn)


def coloured(names: Sequence[str]) -> list[DrawnClass]:
    """Classes of these names, after those that are there."""
    return [DrawnClass(name, colour_of(index)) for index, name in enumerate(names, start=1)]


def _label(name: str, indices: dict[str, int]) -> int:
    if name == BACKGROUND:
        return 0
    return IGNORED if is_ignored(name) else indices[name]
