"""One band of a mask's rows: the vertical segments of boundaries, and what follows what.

See ``outlines`` for the whole.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Labels: TypeAlias = NDArray[np.unsignedinteger] | NDArray[np.signedinteger]
Int = NDArray[np.int64]

DOWN, UP = 0, 1

Ring: TypeAlias = tuple[Int, int, int]
"""Closed (n, 2) corners, shoelace area, perimeter."""

Rope: TypeAlias = "tuple[Int | Rope, ...]"
"""Corners in parts, so that chains are joined without copying what they have gathered."""


@dataclass(eq=False)
class OpenObject:
    """What is known of an object: rings are (corners, area, perimeter)."""

    label: int
    exterior: Ring | None = None
    holes: list[Ring] = field(default_factory=list)


@dataclass(frozen=True)
class Cut:
    """Segments that the end of a band cuts; ``chains`` joins them in pairs.

    Attributes:
        label, x, direction: of each segment, and ``top``, the line it begins on.
        chains: (upward segment, downward segment, corners between them, their object).
    """

    label: Int
    x: Int
    direction: Int
    top: Int
    chains: list[tuple[int, int, Rope, OpenObject]]

    @classmethod
    def nothing(cls) -> "Cut":
        """What lies above the first band."""
        none = np.zeros(0, np.int64)
        return cls(none, none, none, none, [])


class Band:
    """The segments of a band of rows, those cut by its beginning included.

    Attributes:
        x, label, direction, top, bottom: of each segment; bottom is -1 where it stays open.
        following: the segment that a horizontal edge leads to; the number of segments if none yet.
        ties: (n, 2) segments of one object that no edge need connect.
        touching: (n, 2) segments of one class that meet at a corner of two pixels.
        resumed: the upward segment of each chain of ``cut``, and its place in ``cut.chains``.
    """

    def __init__(self, above: Labels, rows: Labels, line: int, cut: Cut) -> None:
        self.width = rows.shape[1]
        self.cut = cut
        self._height = len(rows)
        # Around the band's rows and the one above, a frame that is never looked at for its own.
        framed = np.zeros((len(rows) + 3, self.width + 2), rows.dtype)
        framed[1, 1:-1], framed[2:-1, 1:-1] = above, rows
        self._labels = int(framed.max()) + 1
        changes = np.flatnonzero(framed[1:-1, 1:] != framed[1:-1, :-1])
        row, x = np.divmod(changes, self.width + 1)
        pixels, stride = framed.ravel(), framed.shape[1]
        right = (row + 1) * stride + x + 1
        first, last = row == 0, row == self._height

        tops: list[tuple[Int, ...]] = []
        bottoms: list[tuple[Int, ...]] = []
        opens: list[tuple[Int, ...]] = []
        for direction, inside, outside in ((DOWN, right - 1, right), (UP, right, right - 1)):
            label = pixels[inside]
            object_ = label != 0
            begins = (pixels[inside - stride] != label) | (pixels[outside - stride] == label)
            ends = (pixels[inside + stride] != label) | (pixels[outside + stride] == label)
            for kept, found in (
                (tops, object_ & begins & ~first),
                (bottoms, object_ & ends & ~last),
                (opens, object_ & last),
            ):
                at = np.flatnonzero(found)
                kept.append((label[at].astype(np.int64), x[at], np.full(len(at), direction), at))
        label_t, x_t, direction_t, at_t = map(np.concatenate, zip(*tops, strict=True))
        label_b, x_b, direction_b, at_b = map(np.concatenate, zip(*bottoms, strict=True))
        label_o, x_o, direction_o, _ = map(np.concatenate, zip(*opens, strict=True))
        line_t, line_b = row[at_t], row[at_b] + 1

        # Beginnings and ends in one order: by class, column, direction and line.
        known = len(cut.x)
        key_t = np.concatenate(
            (
                self._column_key(cut.label, cut.x, cut.direction, 0),
                self._column_key(label_t, x_t, direction_t, line_t),
            )
        )
        key_b = np.concatenate(
            (
                self._column_key(label_b, x_b, direction_b, line_b),
                self._column_key(label_o, x_o, direction_o, self._height + 1),
            )
        )
        order_t, order_b = np.argsort(key_t), np.argsort(key_b)
        self.label = np.concatenate((cut.label, label_t))[order_t]
        self.x = np.concatenate((cut.x, x_t))[order_t]
        self.direction = np.concatenate((cut.direction, direction_t))[order_t]
        self.top = np.concatenate((cut.top, line_t + (line - 1)))[order_t]
        bottom = np.concatenate((line_b + (line - 1), np.full(len(x_o), -1)))
        self.bottom = bottom[order_b]
        segment_t, segment_b = _inverse(order_t), _inverse(order_b)
        self.resumed = {int(segment_t[up]): i for i, (up, *_) in enumerate(cut.chains)}

        # All ends, from left to right on each line.
        segment = np.concatenate((segment_t[known:], segment_b[: len(x_b)]))
        is_top = np.arange(len(segment)) < len(x_t)
        key = self._line_key(
            np.concatenate((line_t, line_b)),
            np.concatenate((label_t, label_b)),
            np.concatenate((x_t, x_b)),
            np.concatenate((direction_t, direction_b)),
        )
        across = np.argsort(key)
        segment, is_top, place = segment[across], is_top[across], key[across] >> 1
        leaves = is_top == (self.direction[segment] == UP)
        left, right_, forward = segment[::2], segment[1::2], leaves[::2]
        self.following = np.full(len(self.x), len(self.x))
        self.following[np.where(forward, left, right_)] = np.where(forward, right_, left)
        for up, down, *_ in cut.chains:
            self.following[segment_t[up]] = segment_t[down]
        same = np.flatnonzero(place[1:] == place[:-1])
        self.touching = np.stack((segment[same], segment[same + 1]), axis=1)

        # A gap opens where two segments that begin are joined, the left one being downward. The
        # change before it in its row is where its run of pixels begins.
        opening = is_top[::2] & is_top[1::2] & (self.direction[left] == DOWN)
        gap = across[::2][opening]
        run = self._column_key(label_t[gap], x[at_t[gap] - 1], UP, line_t[gap])
        owner = np.searchsorted(key_t[order_t], run, side="right") - 1
        self.ties = np.stack((left[opening], owner), axis=1)

    def _column_key(self, label: Int, x: Int, direction: Int | int, line: Int | int) -> Int:
        return ((label * (self.width + 1) + x) * 2 + direction) * (self._height + 2) + line

    def _line_key(self, line: Int, label: Int, x: Int, direction: Int) -> Int:
        return ((line * self._labels + label) * (self.width + 1) + x) * 2 + direction

    def code(self, corners: Int) -> Int:
        """Number (n, 2) corners by line, then from left to right."""
        return corners[:, 1] * (self.width + 1) + corners[:, 0]

    def end_code(self, corners: Int) -> Int:
        """The same from right to left: the leftmost corner of the last line comes last."""
        return corners[:, 1] * (self.width + 1) + (self.width - corners[:, 0])


def _inverse(order: NDArray[np.intp]) -> Int:
    inverse = np.empty(len(order), np.int64)
    inverse[order] = np.arange(len(order))
    return inverse
