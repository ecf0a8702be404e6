"""The newest view first, and none that nobody looks at any more."""

from genselfdiff.live.blocks import Block, Picture
from genselfdiff.live.views import FORGOTTEN, View, Views

A, B = Picture(0, 0), Picture(1, 0)
LEFT, RIGHT = (Block(0, 0), Block(1, 0)), (Block(8, 0), Block(9, 0))


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def all_missing(picture: Picture, blocks: list[Block]) -> list[Block]:
    return blocks


def test_the_newest_first_and_the_rest_after_it() -> None:
    views = Views(clock := Clock())
    views.look(View((A,), LEFT))
    clock.seconds = 0.5
    views.look(View((A, B), RIGHT))
    assert views.wanted(all_missing) == [(A, [*RIGHT]), (B, [*RIGHT]), (A, [*LEFT])]


def test_what_is_there_already_is_not_wanted() -> None:
    views = Views(Clock())
    views.look(View((A, B), LEFT))
    assert views.wanted(lambda picture, blocks: blocks[1:] if picture == A else []) == [
        (A, [LEFT[1]])
    ]


def test_what_nobody_looks_at_any_more_is_given_up() -> None:
    views = Views(clock := Clock())
    views.look(View((A,), LEFT))
    clock.seconds = FORGOTTEN - 0.1
    assert views.wanted(all_missing)
    clock.seconds = FORGOTTEN
    assert views.wanted(all_missing) == []


def test_of_two_pages_neither_overtakes_the_other_by_asking_again() -> None:
    views = Views(clock := Clock())
    for _ in range(4):
        views.look(View((A,), LEFT))
        views.look(View((A,), RIGHT))
        clock.seconds += 0.5
        assert views.wanted(all_missing)[0] == (A, [*RIGHT])


def test_a_view_that_comes_back_is_the_newest() -> None:
    views = Views(clock := Clock())
    views.look(View((A,), LEFT))
    clock.seconds = 1.5
    views.look(View((A,), RIGHT))
    views.look(View((A,), LEFT))
    assert views.wanted(all_missing)[0] == (A, [*LEFT])


def test_a_slide_of_which_too_much_is_seen_is_told_without_blocks() -> None:
    views = Views(Clock())
    views.look(View((A,), ()))
    assert views.wanted(all_missing) == [(A, [])]
