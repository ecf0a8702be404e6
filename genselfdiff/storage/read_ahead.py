"""Fetching parts of an object before they are read: neighbours in one request, many at a time."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from genselfdiff.storage.stored_file import Range

IN_FLIGHT = 16
"""Requests at a time."""

AHEAD = 32 * 2**20
"""Bytes that are fetched beyond what was read last."""

HELD = 2 * AHEAD
"""Bytes that are held at most: also of what was expected, and never read."""

LONGEST = 2**20
"""Bytes that are asked for in one request, unless one part is longer."""

_GAP = 4096
"""Bytes between neighbours that are fetched along with them: a request costs as much as many."""

_AT_ONCE = 1024
"""Parts among which neighbours are looked for."""


@dataclass
class _Part:
    """A part that is held or on its way; ``until`` counts the bytes expected before it and it."""

    until: int = 0
    data: "Future[bytes]" = field(default_factory=Future)


class ReadAhead:
    """Parts of one object, fetched once and given once; threads may read at the same time.

    Args:
        fetch: gives the bytes from one place to another.
    """

    def __init__(self, fetch: Callable[[int, int], bytes]) -> None:
        self._fetch = fetch
        self._pool = ThreadPoolExecutor(IN_FLIGHT, "gsd-fetch")
        self._lock = threading.Lock()
        self._held: dict[Range, _Part] = {}
        self._bytes = 0
        self._expected: Iterator[Range] = iter(())
        self._issued = self._read = 0

    def expect(self, ranges: Iterable[Range]) -> None:
        """Fetch ``ranges`` in this order, as far ahead of what is read as `AHEAD` says.

        One is passed over that is held when it is its turn, also if it comes several times.
        """
        with self._lock:
            self._expected = iter(ranges)
            self._issued = self._read = 0
            self._advance()

    def want(self, ranges: Iterable[Range]) -> None:
        """Fetch ``ranges`` now, as many as can be held."""
        with self._lock:
            missing = []
            for each in dict.fromkeys(ranges):
                if each not in self._held and self._bytes + each[1] <= HELD:
                    self._add(each, 0)
                    missing.append(each)
            self._request(missing)

    def take(self, wanted: Range) -> bytes:
        """The bytes of a part, which are held no longer.

        Raises:
            InputError: they cannot be had.
        """
        with self._lock:
            if wanted not in self._held:
                self._add(wanted, 0)
                self._request([wanted])
            part = self._held.pop(wanted)
            self._bytes -= wanted[1]
            self._read = max(self._read, part.until)
            self._advance()
        return part.data.result()

    def close(self) -> None:
        """Fetch nothing more."""
        with self._lock:
            self._expected = iter(())
            self._held.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _add(self, wanted: Range, until: int) -> None:
        self._held[wanted] = _Part(until)
        self._bytes += wanted[1]

    def _advance(self) -> None:
        if self._issued - self._read > AHEAD // 2:
            return
        batch: list[Range] = []
        while self._issued - self._read < AHEAD and len(batch) < _AT_ONCE:
            wanted = next(self._expected, None)
            if wanted is None:
                break
            if wanted not in self._held:
                self._issued += wanted[1]
                self._add(wanted, self._issued)
                batch.append(wanted)
        while self._bytes > HELD:
            oldest = next(iter(self._held))  # was expected, and is not read in its turn
            del self._held[oldest]
            self._bytes -= oldest[1]
        self._request([wanted for wanted in batch if wanted in self._held])

    def _request(self, ranges: list[Range]) -> None:
        """Ask for parts that are in ``_held``: first what comes first, with its neighbours."""
        turn = {each: number for number, each in enumerate(ranges)}
        for group in sorted(_joined(ranges), key=lambda group: min(turn[each] for each in group)):
            parts = [(each, self._held[each].data) for each in group]
            self._pool.submit(self._fetch_joined, parts)

    def _fetch_joined(self, parts: "list[tuple[Range, Future[bytes]]]") -> None:
        start = parts[0][0][0]
        try:
            data = self._fetch(start, max(offset + count for (offset, count), _ in parts))
        except BaseException as error:
            for _, future in parts:
                future.set_exception(error)
            return
        for (offset, count), future in parts:
            future.set_result(data[offset - start : offset - start + count])


def cut(start: int, stop: int) -> list[Range]:
    """A long range in parts, each of them one request."""
    return [(at, min(LONGEST, stop - at)) for at in range(start, stop, LONGEST)]


def _joined(ranges: list[Range]) -> list[list[Range]]:
    """Group what lies side by side, up to `LONGEST` together."""
    groups: list[list[Range]] = []
    end = 0
    ordered = sorted(ranges)
    for offset, count in ordered:
        group = groups[-1] if groups else []
        if group and offset - end <= _GAP and offset + count - group[0][0] <= LONGEST:
            group.append((offset, count))
        else:
            groups.append([(offset, count)])
            end = 0
        end = max(end, offset + count)
    return groups
