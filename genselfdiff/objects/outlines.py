"""The objects of a mask as polygons along the pixels' edges, traced while its rows come in.

Pixels of one class that share a side are one object; two that only touch at a corner are not, and
the background passes between them. A boundary is made of vertical segments, joined by horizontal
ones, and runs so that shoelace areas are positive outside and negative around holes: down at the
right side of pixels, up at their left side. Hence

- a segment begins where the row above has not the same edge, and ends where the row below has not;
- on a line between two rows, the ends of one class's segments, from left to right, are joined two
  by two. Where two ends share a point because pixels touch at a corner, the downward segment
  comes first: that keeps the two pixels apart;
- what the end of a band cuts is a chain that comes up by one open segment and goes down by
  another. For the next band the two follow each other, and what lies between is kept aside;
- a gap that opens in a run of pixels belongs to the object on its left: that ties holes to it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from genselfdiff.objects.outline_band import (
    DOWN,
    UP,
    Band,
    Cut,
    Int,
    Labels,
    OpenObject,
    Ring,
    Rope,
)


@dataclass(frozen=True)
class Outline:
    """An object of a mask.

    Attributes:
        label: its class index, or whatever number its pixels have.
        rings: closed (n, 2) int64 corners (x, y) in pixels of the mask: the exterior, whose
            shoelace area is positive, then the holes, whose areas are negative. No ring meets
            itself; two of them share single points at most.
        area: in pixels, without the holes.
        perimeter: length of all rings in pixel sides.
    """

    label: int
    rings: Sequence[Int]
    area: int
    perimeter: int

    @cached_property
    def box(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of its exterior."""
        corners = self.rings[0]
        return *corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()


class OutlineTracer:
    """Traces the objects of every label but 0, in memory for one band and the objects still open.

    Objects come by the last row of their exterior and, within it, from right to left; a ring
    begins with the leftmost of its highest corners. Neither depends on how the rows are cut.

    Args:
        width: of the mask in pixels.
        min_area: in pixels; smaller holes are filled, then smaller objects are left out.
    """

    def __init__(self, width: int, min_area: float = 0.0) -> None:
        self._width = width
        self._min_area = min_area
        self._above: Labels = np.zeros((1, width), np.uint8)
        self._line = 0
        self._cut = Cut.nothing()

    def push(self, rows: Labels) -> list[Outline]:
        """Take the next (n, width) labels, integers of 0 and more; return what has ended."""
        if not len(rows):
            return []
        band = Band(self._above, rows, self._line, self._cut)
        self._above = rows[-1:].copy()
        self._line += len(rows)
        if not len(band.x):
            return []
        objects, self._cut = _collect(band, _Walks(band), self._min_area)
        return objects

    def finish(self) -> list[Outline]:
        """Return the objects that the mask's lower edge ends."""
        return self.push(np.zeros_like(self._above))


class _Walks:
    """The segments of a band in the order in which boundaries follow them.

    Attributes:
        order: segments, walk by walk; first come the chains that stay open, then the rings that
            close chains of earlier bands, then the rings that lie in the band.
        starts: place of each walk in ``order``, and the length of ``order``.
        open, resumed: number of walks of the first and second kind.
        corners: (2 n, 2) beginning and end of each segment, in this order.
    """

    def __init__(self, band: Band) -> None:
        heads = np.flatnonzero((band.bottom < 0) & (band.direction == UP))
        seen = -1
        following = [*band.following.tolist(), seen]
        order: list[int] = []
        starts: list[int] = []
        kinds = []
        # One step costs 0.1 us: NumPy could only halve distances, which takes as long.
        for firsts in (heads.tolist(), band.resumed, range(len(band.x))):
            for node in firsts:
                if following[node] == seen:
                    continue
                starts.append(len(order))
                while (after := following[node]) != seen:
                    following[node] = seen
                    order.append(node)
                    node = after
            kinds.append(len(starts))
        self.open, self.resumed = kinds[0], kinds[1] - kinds[0]
        self.order = np.asarray(order)
        self.starts = np.asarray([*starts, len(order)])
        down = band.direction[self.order] == DOWN
        x, top, bottom = (a[self.order] for a in (band.x, band.top, band.bottom))
        self.corners = np.empty((2 * len(order), 2), np.int64)
        self.corners[:, 0] = np.repeat(x, 2)
        self.corners[::2, 1], self.corners[1::2, 1] = (
            np.where(down, top, bottom),
            np.where(down, bottom, top),
        )


def _collect(band: Band, walked: _Walks, min_area: float) -> tuple[list[Outline], Cut]:
    """Put rings together to objects; return those that have ended, and what the band's end cuts."""
    walks = len(walked.starts) - 1
    walk_of = np.empty(len(band.x), np.int64)
    walk_of[walked.order] = np.repeat(np.arange(walks), np.diff(walked.starts))

    # Most objects are one ring that nothing else belongs to; the others are looked at one by one.
    ties, touching = walk_of[band.ties], walk_of[band.touching]
    ties = ties[ties[:, 0] != ties[:, 1]]
    special = np.zeros(walks, np.bool_)
    special[: walked.open + walked.resumed] = True
    special[ties] = True
    special[touching[touching[:, 0] == touching[:, 1], 0]] = True
    outlines = list(_whole_rings(band, walked, np.flatnonzero(~special), min_area))

    earlier = list(dict.fromkeys(chain[3] for chain in band.cut.chains))
    number = {known: walks + i for i, known in enumerate(earlier)}
    groups = _Groups()
    for a, b in ties.tolist():
        groups.join(a, b)
    for segment, chain in band.resumed.items():
        groups.join(int(walk_of[segment]), number[band.cut.chains[chain][3]])
    objects: dict[int, OpenObject] = {}
    for known in earlier:
        merged = objects.setdefault(groups.find(number[known]), known)
        if merged is not known:
            merged.holes += known.holes

    chains: list[tuple[int, int, Rope, OpenObject]] = []
    rings: list[Int] = []
    owners: list[OpenObject] = []
    for walk in np.flatnonzero(special).tolist():
        begin, end = walked.starts[walk : walk + 2].tolist()
        label = int(band.label[walked.order[begin]])
        known = objects.setdefault(groups.find(walk), OpenObject(label))
        rope = _rope(band, walked, begin, end, inner=walk < walked.open)
        if walk < walked.open:
            chains.append((int(walked.order[begin]), int(walked.order[end - 1]), rope, known))
            continue
        rings.append(np.concatenate(list(_parts(rope))))
        owners.append(known)
    loops, ring_of = _cut_where_they_meet(rings, band)
    for ring, place in zip(_closed_rings(loops, band), ring_of, strict=True):
        known = owners[place]
        if ring[1] > 0:
            known.exterior = ring
        elif -ring[1] >= min_area:
            known.holes.append((ring[0].copy(), *ring[1:]))  # may wait for long: not as a view
    for known in objects.values():
        if known.exterior is not None:
            place, outline = _finished(known, known.exterior, band)
            if outline.area >= min_area:
                outlines.append((place, outline))
    outlines.sort(key=lambda found: found[0])
    return [outline for _, outline in outlines], _cut(band, chains)


def _cut(band: Band, chains: list[tuple[int, int, Rope, OpenObject]]) -> Cut:
    """Describe the open segments for the next band."""
    opens = np.flatnonzero(band.bottom < 0)
    place = {segment: i for i, segment in enumerate(opens.tolist())}
    chains = [(place[up], place[down], rope, known) for up, down, rope, known in chains]
    return Cut(band.label[opens], band.x[opens], band.direction[opens], band.top[opens], chains)


def _whole_rings(
    band: Band, walked: _Walks, walks: Int, min_area: float
) -> Iterator[tuple[int, Outline]]:
    """Measure those of the ``walks`` that are objects of one ring; give the place of their end."""
    if not len(walks):
        return
    lengths = 2 * np.diff(walked.starts)[walks]
    starts = np.cumsum(lengths) - lengths
    within = np.arange(lengths.sum()) - np.repeat(starts, lengths)
    corners = walked.corners[np.repeat(2 * walked.starts[walks], lengths) + within]
    labels = band.label[walked.order[walked.starts[walks]]].tolist()
    corners, begins, areas, perimeters = _closed(corners, lengths, band)
    last = np.maximum.reduceat(band.end_code(corners), begins).tolist()
    rings = _split(corners, begins, areas, perimeters)
    for label, place, (ring, area, perimeter) in zip(labels, last, rings, strict=True):
        if area >= min_area:
            yield place, Outline(label, (ring,), area, perimeter)


def _closed_rings(loops: Sequence[Int], band: Band) -> Iterator[Ring]:
    """Turn open (n, 2) rings so that they begin where they should; close and measure them."""
    if loops:
        lengths = np.asarray([len(loop) for loop in loops])
        yield from _split(*_closed(np.concatenate(loops), lengths, band))


def _closed(corners: Int, lengths: Int, band: Band) -> tuple[Int, Int, Int, Int]:
    """The same of rings one after another: corners, their beginnings, areas, perimeters."""
    starts = np.cumsum(lengths) - lengths
    code = band.code(corners)
    highest = np.minimum.reduceat(code, starts)
    shift = np.flatnonzero(code == np.repeat(highest, lengths)) - starts
    longer = lengths + 1
    begins = np.cumsum(longer) - longer
    within = np.arange(longer.sum()) - np.repeat(begins - shift, longer)
    within %= np.repeat(lengths, longer)
    corners = corners[np.repeat(starts, longer) + within]
    steps = np.zeros_like(corners)
    np.subtract(corners[1:], corners[:-1], out=steps[1:])
    steps[begins] = 0
    areas = np.add.reduceat(corners[:, 0] * steps[:, 1], begins)
    return corners, begins, areas, np.add.reduceat(np.abs(steps).sum(axis=1), begins)


def _split(corners: Int, begins: Int, areas: Int, perimeters: Int) -> Iterator[Ring]:
    ends = [*begins[1:].tolist(), len(corners)]
    columns = (begins.tolist(), ends, areas.tolist(), perimeters.tolist())
    for begin, end, area, perimeter in zip(*columns, strict=True):
        yield corners[begin:end], area, perimeter


def _finished(known: OpenObject, exterior: Ring, band: Band) -> tuple[int, Outline]:
    """An object of several rings, and the place of its end."""
    holes = sorted(known.holes, key=lambda hole: (hole[0][0, 1], hole[0][0, 0]))
    corners, areas, perimeters = zip(exterior, *holes, strict=True)
    place = int(band.end_code(corners[0]).max())
    return place, Outline(known.label, corners, sum(areas), sum(perimeters))


def _cut_where_they_meet(rings: Sequence[Int], band: Band) -> tuple[list[Int], list[int]]:
    """Cut open (n, 2) rings where they meet themselves; give the pieces, and the ring of each.

    A ring meets itself where the background passes between two pixels of one object. Cut there,
    what the object encloses becomes a hole that touches the exterior in a point.
    """
    if not rings:
        return [], []
    codes = band.code(np.concatenate(rings))
    owner = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    order = np.lexsort((codes, owner))
    again = (codes[order[1:]] == codes[order[:-1]]) & (owner[order[1:]] == owner[order[:-1]])
    meeting = set(owner[order[1:]][again].tolist())
    pieces: list[Int] = []
    ring_of: list[int] = []
    for number, ring in enumerate(rings):
        cut = _simple_loops(band.code(ring).tolist(), band) if number in meeting else (ring,)
        for piece in cut:
            pieces.append(piece)
            ring_of.append(number)
    return pieces, ring_of


def _simple_loops(codes: Sequence[int], band: Band) -> Iterator[Int]:
    """Follow a ring by the codes of its corners; a loop ends where one of them comes again."""
    path: list[int] = []
    place: dict[int, int] = {}
    loops = []
    for code in codes:
        if code in place:
            begin = place[code]
            loops.append(path[begin:])
            for passed in path[begin + 1 :]:
                del place[passed]
            del path[begin + 1 :]
        else:
            place[code] = len(path)
            path.append(code)
    for loop in (*loops, path):
        y, x = np.divmod(loop, band.width + 1)
        yield np.stack((x, y), axis=1)


def _rope(band: Band, walked: _Walks, begin: int, end: int, inner: bool) -> Rope:
    """Corners of the walk ``order[begin:end]``; ``inner``: without its first and last segment."""
    parts: list[Int | Rope] = []
    start = begin + inner
    for place, segment in enumerate(walked.order[begin:end].tolist(), begin):
        if segment in band.resumed:
            parts.append(walked.corners[2 * start : 2 * (place + 1)].copy())
            parts.append(band.cut.chains[band.resumed[segment]][2])
            start = place + 1
    parts.append(walked.corners[2 * start : 2 * (end - inner)].copy())
    return tuple(part for part in parts if len(part))


def _parts(rope: Rope) -> Iterator[Int]:
    """The arrays of a rope, in order; ropes are too deep for recursion."""
    waiting: list[Int | Rope] = [rope]
    while waiting:
        part = waiting.pop()
        if isinstance(part, tuple):
            waiting.extend(reversed(part))
        else:
            yield part


class _Groups:
    """Which walks and earlier objects belong together; those never joined take no memory."""

    def __init__(self) -> None:
        self._above: dict[int, int] = {}

    def find(self, member: int) -> int:
        path = []
        while member in self._above:
            path.append(member)
            member = self._above[member]
        self._above.update(dict.fromkeys(path, member))
        return member

    def join(self, a: int, b: int) -> None:
        a, b = self.find(a), self.find(b)
        if a != b:
            self._above[a] = b
