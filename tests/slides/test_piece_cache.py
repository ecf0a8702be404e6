import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from genselfdiff.slides.stored.piece_cache import PieceCache


class Decoder:
    """Counts how often each piece of 100 bytes is decoded."""

    def __init__(self) -> None:
        self.decoded: list[int] = []

    def __call__(self, number: int, size: int = 100) -> Callable[[], np.ndarray]:
        def decode() -> np.ndarray:
            self.decoded.append(number)
            return np.full(size, number % 256, np.uint8)

        return decode


def test_pieces_are_decoded_once_while_they_fit() -> None:
    cache, decoder = PieceCache(300, 10_000), Decoder()
    for number in (1, 2, 3, 1, 2, 3):
        assert (cache.get(number, decoder(number)) == number).all()
    assert decoder.decoded == [1, 2, 3]


def test_the_least_recently_used_goes_first() -> None:
    cache, decoder = PieceCache(300, 10_000), Decoder()
    for number in (1, 2, 3, 1, 4, 1, 3, 2):
        cache.get(number, decoder(number))
    assert decoder.decoded == [1, 2, 3, 4, 2]


def test_a_piece_beyond_the_capacity_is_kept_alone() -> None:
    cache, decoder = PieceCache(300, 10_000), Decoder()
    for number in (1, 9, 9, 1, 1):
        cache.get(number, decoder(number, 1000 if number == 9 else 100))
    assert decoder.decoded == [1, 9, 1]


def test_a_failure_is_not_remembered() -> None:
    cache, decoder = PieceCache(300, 10_000), Decoder()

    def fail() -> np.ndarray:
        raise OSError("unreadable")

    for _ in range(2):
        with pytest.raises(OSError, match="unreadable"):
            cache.get(1, fail)
    assert (cache.get(1, decoder(1)) == 1).all()


def test_dropped_pieces_leave_room() -> None:
    cache, decoder = PieceCache(200, 10_000), Decoder()
    for number in (1, 2):
        cache.get(number, decoder(number))
    cache.drop(lambda key: key == 1)
    for number in (3, 2, 3, 1):
        cache.get(number, decoder(number))
    assert decoder.decoded == [1, 2, 3, 1]


def test_threads_that_want_one_piece_decode_it_once() -> None:
    cache, decoder = PieceCache(10_000, 10_000), Decoder()

    def slow() -> np.ndarray:
        time.sleep(0.05)
        return decoder(7)()

    threads = [threading.Thread(target=cache.get, args=(7, slow)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert decoder.decoded == [7]


def test_what_is_reserved_is_kept_as_long_as_it_is_needed() -> None:
    cache, decoder = PieceCache(200, 400), Decoder()
    cache.reserve("wide", 350)
    cache.reserve("narrow", 100)
    assert cache.capacity == 350
    for number in (1, 2, 3, 1, 2, 3):
        cache.get(number, decoder(number))
    assert decoder.decoded == [1, 2, 3]
    cache.reserve("wide", 10**9)
    assert cache.capacity == 400
    cache.reserve("wide", 0)
    assert cache.capacity == 200
    for number in (4, 1):
        cache.get(number, decoder(number))
    assert decoder.decoded == [1, 2, 3, 4, 1]
