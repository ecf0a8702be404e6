"""The labels of a field, as they are drawn and taken back."""

import zlib
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from genselfdiff.data.labelled_folder import IGNORED
from genselfdiff.errors import InputError, one_line
from genselfdiff.files import atomic_file
from genselfdiff.input_files import read_bytes
from genselfdiff.viewer.corrections.strokes import Stroke, box_of, covered

Uint8 = NDArray[np.uint8]
Int32 = NDArray[np.int32]

MOST_PIXELS = 2**24
"""Of a field, which the page draws as one picture."""


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels: its corner, width and height."""

    x: int
    y: int
    width: int
    height: int

    def meets(self, other: "Box") -> bool:
        """Whether they have a pixel in common."""
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )

    def within(self, width: int, height: int) -> bool:
        """Whether it lies in a picture of that size, and is not empty."""
        is_right = 0 <= self.x <= self.x + self.width <= width and self.width > 0
        return is_right and 0 <= self.y <= self.y + self.height <= height and self.height > 0


@dataclass(frozen=True)
class _Before:
    """What a stroke was drawn over."""

    box: tuple[slice, slice]
    labels: bytes
    objects: bytes
    count: int


class FieldLabels:
    """Which class, and which object, each pixel of a field has.

    A polygon is an object of its own. A brush that begins on an object of its class makes that
    larger, else it begins another.

    Args:
        field: in pixels of the slide.
        labels: (H, W) classes that it begins with; None: nothing but background.
        objects: (H, W) numbers of objects that these are.

    Attributes:
        labels: (H, W) uint8.
        objects: (H, W) int32, 0 where the label is 0 or ignored.
    """

    def __init__(
        self, field: Box, labels: Uint8 | None = None, objects: Int32 | None = None
    ) -> None:
        shape = field.height, field.width
        self.field = field
        self.labels = np.zeros(shape, np.uint8) if labels is None else labels
        self.objects = np.zeros(shape, np.int32) if objects is None else objects
        self._count = int(self.objects.max(initial=0))
        self._before: list[_Before] = []

    def draw(self, stroke: Stroke) -> Box:
        """Draw a stroke; return the box, in the field, that may be another now.

        Raises:
            InputError: see `covered`.
        """
        field = self.field
        if stroke.kind == "object":
            box, inside = self._object_at(stroke)
        else:
            left, top, right, bottom = box_of(stroke, field.x, field.y, field.width, field.height)
            box = np.s_[top : max(bottom, top), left : max(right, left)]
            size = max(right - left, 0), max(bottom - top, 0)
            inside = covered(stroke, field.x + left, field.y + top, *size)
        labels, objects = self.labels[box], self.objects[box]
        self._before.append(_Before(box, _packed(labels), _packed(objects), self._count))
        number = 0 if stroke.label in (0, IGNORED) else self._number(stroke)
        labels[inside] = stroke.label
        objects[inside] = number
        return _box(box)

    def take_back(self) -> Box:
        """Undo the last stroke that was drawn; return the box, in the field, that is another."""
        before = self._before.pop()
        for array, packed in ((self.labels, before.labels), (self.objects, before.objects)):
            part = array[before.box]
            part[...] = np.frombuffer(zlib.decompress(packed), array.dtype).reshape(part.shape)
        self._count = before.count
        return _box(before.box)

    def picture(self, box: Box) -> Uint8:
        """(H, W, 3) of a box of the field: classes, and the lower 16 bits of objects' numbers."""
        window = np.s_[box.y : box.y + box.height, box.x : box.x + box.width]
        objects = self.objects[window]
        return np.dstack((self.labels[window], objects & 255, objects >> 8 & 255)).astype(np.uint8)

    def _number(self, stroke: Stroke) -> int:
        """That of the object that a stroke belongs to."""
        at = self._pixel(stroke)
        if stroke.kind == "object" and at is not None:
            return int(self.objects[at])
        if stroke.kind == "brush" and at is not None and self.labels[at] == stroke.label:
            return int(self.objects[at])
        self._count += 1
        return self._count

    def _pixel(self, stroke: Stroke) -> tuple[int, int] | None:
        """Row and column of where a stroke begins; None: outside the field."""
        x, y = np.floor(stroke.points[0]).astype(int).tolist()
        row, column = y - self.field.y, x - self.field.x
        is_inside = 0 <= row < self.field.height and 0 <= column < self.field.width
        return (row, column) if is_inside else None

    def _object_at(self, stroke: Stroke) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
        at = self._pixel(stroke)
        number = 0 if at is None else int(self.objects[at])
        if not number:
            return np.s_[0:0, 0:0], np.zeros((0, 0), np.bool_)
        inside = self.objects == number
        rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return box, inside[box]


def write_start(path: Path, labels: Uint8, objects: Int32) -> None:
    """Keep what a field begins with: masks may be replaced.

    Raises:
        OutputError: it cannot be written.
    """
    numbers = [objects >> shift & 255 for shift in (0, 8, 16)]
    stored = np.dstack((labels, *numbers)).astype(np.uint8)
    with atomic_file(path) as temporary:
        temporary.write_bytes(imagecodecs.png_encode(stored, level=4))


def read_start(path: Path, field: Box) -> tuple[Uint8, Int32]:
    """What `write_start` has kept.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        stored = np.asarray(imagecodecs.png_decode(read_bytes(path, 5 * MOST_PIXELS)))
    except (ValueError, imagecodecs.PngError) as error:
        raise InputError(f"{path}: is damaged: {one_line(error)}") from error
    if stored.shape != (field.height, field.width, 4) or stored.dtype != np.uint8:
        raise InputError(f"{path}: is not what the field began with")
    numbers = stored[..., 1:].astype(np.int32)
    objects = numbers[..., 0] | numbers[..., 1] << 8 | numbers[..., 2] << 16
    return np.ascontiguousarray(stored[..., 0]), objects


def _packed(array: NDArray[np.generic]) -> bytes:
    return zlib.compress(np.ascontiguousarray(array).tobytes(), 1)


def _box(window: tuple[slice, slice]) -> Box:
    rows, columns = window
    return Box(
        int(columns.start),
        int(rows.start),
        int(columns.stop - columns.start),
        int(rows.stop - rows.start),
    )
