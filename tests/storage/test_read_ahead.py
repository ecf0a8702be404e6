"""Parts are fetched once, neighbours together, as far ahead as is allowed."""

import threading
from collections.abc import Callable, Iterator

import pytest

from genselfdiff.storage import read_ahead
from genselfdiff.storage.read_ahead import ReadAhead

CONTENT = bytes(range(256)) * 4096


class Source:
    def __init__(self) -> None:
        self.requests: list[tuple[int, int]] = []
        self.lock = threading.Lock()

    def __call__(self, start: int, stop: int) -> bytes:
        with self.lock:
            self.requests.append((start, stop))
        return CONTENT[start:stop]


@pytest.fixture
def make() -> Iterator[Callable[[], tuple[ReadAhead, Source]]]:
    made: list[ReadAhead] = []

    def make() -> tuple[ReadAhead, Source]:
        source = Source()
        made.append(ReadAhead(source))
        return made[-1], source

    yield make
    for each in made:
        each.close()


def test_neighbours_are_one_request(make: Callable[[], tuple[ReadAhead, Source]]) -> None:
    ahead, source = make()
    parts = [(2000, 500), (1000, 1000), (2500, 700), (900_000, 10)]
    ahead.want(parts)
    assert [ahead.take(part) for part in parts] == [CONTENT[a : a + n] for a, n in parts]
    assert sorted(source.requests) == [(1000, 3200), (900_000, 900_010)]


def test_no_request_is_longer_than_allowed(
    make: Callable[[], tuple[ReadAhead, Source]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_ahead, "LONGEST", 1000)
    ahead, source = make()
    parts = [(at, 300) for at in range(0, 3000, 300)] + [(5000, 2000)]
    ahead.want(parts)
    assert [len(ahead.take(part)) for part in parts] == [300] * 10 + [2000]
    assert sorted(source.requests) == [
        (0, 900),
        (900, 1800),
        (1800, 2700),
        (2700, 3000),
        (5000, 7000),
    ]


def test_what_is_expected_is_fetched_as_far_ahead_as_allowed(
    make: Callable[[], tuple[ReadAhead, Source]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_ahead, "AHEAD", 10_000)
    monkeypatch.setattr(read_ahead, "HELD", 20_000)
    ahead, source = make()
    parts = [(at, 1000) for at in range(0, 100_000, 1000)]
    ahead.expect(iter(parts))
    for number, part in enumerate(parts):
        assert ahead.take(part) == CONTENT[part[0] : part[0] + 1000]
        assert max(stop for _, stop in source.requests) <= 1000 * number + 1000 + 10_000
    covered = sorted(source.requests)
    assert sum(stop - start for start, stop in covered) == 100_000, "each byte once"
    assert len(covered) < 25


def test_what_is_expected_and_never_read_does_not_stop_the_rest(
    make: Callable[[], tuple[ReadAhead, Source]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_ahead, "AHEAD", 10_000)
    monkeypatch.setattr(read_ahead, "HELD", 20_000)
    ahead, source = make()
    parts = [(at, 1000) for at in range(0, 100_000, 1000)]
    ahead.expect(iter(parts))
    for part in parts[50:]:
        assert ahead.take(part) == CONTENT[part[0] : part[0] + 1000]
    assert ahead._bytes <= 20_000
    assert sum(stop - start for start, stop in source.requests) <= 170_000


def test_what_was_not_expected_is_fetched(make: Callable[[], tuple[ReadAhead, Source]]) -> None:
    ahead, source = make()
    assert ahead.take((5, 7)) == CONTENT[5:12]
    assert source.requests == [(5, 12)]


def test_an_error_comes_where_the_part_is_taken_and_only_there() -> None:
    def fail(start: int, stop: int) -> bytes:
        if start < 1000:
            raise OSError("gone")
        return CONTENT[start:stop]

    ahead = ReadAhead(fail)
    ahead.want([(0, 10), (500_000, 10)])
    assert ahead.take((500_000, 10)) == CONTENT[500_000:500_010]
    with pytest.raises(OSError, match="gone"):
        ahead.take((0, 10))
    ahead.close()
