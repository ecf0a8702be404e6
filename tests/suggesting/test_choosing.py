"""Which of some fields are chosen."""

from pathlib import Path

import numpy as np
import pytest

from genselfdiff.suggesting.choosing import choose
from genselfdiff.suggesting.field import Field


def field(number: int, looks: float, uncertainty: float = 0.0, slide: str = "a") -> Field:
    return Field(Path(slide), number, 0, 9, 9, np.array([looks, 0.0]), uncertainty)


def numbers(fields: list[Field]) -> list[int]:
    return [each.x for each in fields]


def test_variety_begins_in_the_middle_and_goes_where_nothing_is_chosen() -> None:
    fields = [field(n, looks) for n, looks in enumerate([0, 1, 2, 10, 11, 20, 4])]
    assert numbers(choose(fields, 4, "variety", None, 0)) == [6, 5, 4, 0]


def test_by_model_the_most_unsure_comes_first_and_sure_ones_never() -> None:
    looks, unsure = [0, 0.1, 5, 9, 100, 200], [0.9, 0.8, 0.7, 0.3, 0.2, 0.1]
    fields = [field(n, *both) for n, both in enumerate(zip(looks, unsure, strict=True))]
    assert numbers(choose(fields, 1, "model", None, 0)) == [0]
    assert numbers(choose(fields[::-1], 2, "model", None, 0)) == [0, 3]  # of twice as many
    more = [*fields, *(field(10 + n, 300 + n, 0.0) for n in range(10))]
    assert set(numbers(choose(more, 3, "model", None, 0))) <= set(range(8)) | {10, 11}


def test_fields_that_look_alike_are_not_chosen_together() -> None:
    fields = [field(n, n // 5, 1 - n / 100) for n in range(20)]
    chosen = numbers(choose(fields, 2, "model", None, 0))
    assert chosen == [0, 5]


def test_random_is_a_draw_with_the_seed() -> None:
    fields = [field(n, n) for n in range(50)]
    draws = {tuple(numbers(choose(fields, 5, "random", None, seed))) for seed in range(5)}
    assert len(draws) == 5
    assert draws == {tuple(numbers(choose(fields, 5, "random", None, s))) for s in range(5)}
    assert all(len(set(draw)) == 5 for draw in draws)


@pytest.mark.parametrize("by", ["model", "variety", "random"])
def test_at_most_so_many_of_a_slide(by: str) -> None:
    fields = [field(n, n, n, slide="ab"[n < 20]) for n in range(25)]
    chosen = choose(fields, 6, by, 2, 0)
    assert [str(each.slide) for each in chosen].count("a") == 2
    assert len(chosen) == 4
    assert len(choose(fields, 6, by, None, 0)) == 6
    assert len(choose(fields, 90, by, None, 0)) == 25


def test_a_slide_of_which_the_model_is_surer_has_its_share_too() -> None:
    levels = {"a": 0.8, "b": 0.5, "c": 0.0}
    fields = [field(n, n, at + n / 100, slide) for slide, at in levels.items() for n in range(12)]
    chosen = choose(fields, 6, "model", 2, 0)
    assert sorted(str(each.slide) for each in chosen) == ["a", "a", "b", "b", "c", "c"]
    assert min(each.uncertainty for each in chosen if str(each.slide) == "c") > 0.05
