"""What a model is unsure of."""

import math

import numpy as np
import pytest

from genselfdiff.inference.predictor import Predictor
from genselfdiff.suggesting.candidates import Search
from genselfdiff.suggesting.field import Field
from genselfdiff.suggesting.uncertainty import with_uncertainty

SEARCH = Search(size=256.0, most=10, seed=0)


def fields_of(path, count: int) -> list[Field]:
    return [Field(path, 512 * n, 0, 512, 512, np.zeros(1)) for n in range(count)]


def test_entropy_is_that_of_the_classes_where_the_field_lies(write, redness) -> None:
    pixels = np.full((512, 1024, 3), 255, np.uint8)
    pixels[:, 512:, 0] = 128
    sure, unsure = with_uncertainty(
        fields_of(write(pixels), 2), Predictor(redness, "float32"), SEARCH
    )
    assert sure.uncertainty < 0.01
    assert unsure.uncertainty == pytest.approx(math.log(2), abs=1e-3)
    assert unsure.disagreement == pytest.approx(0, abs=1e-6)


def test_views_that_contradict_each_other_are_told(write, edges_on_the_right) -> None:
    pixels = np.full((512, 1024, 3), 128, np.uint8)
    pixels[:, 512::4] = 200
    flat, striped = with_uncertainty(
        fields_of(write(pixels), 2), Predictor(edges_on_the_right, "float32"), SEARCH
    )
    assert flat.disagreement < 0.01  # beyond the edge of a tile there is nothing
    assert striped.disagreement > 0.1
    assert striped.uncertainty > striped.disagreement


def test_turns_are_turned_back(write, redness) -> None:
    """Seen pixel by pixel, all views agree, whatever the picture."""
    random = np.random.default_rng(0)
    path = write(random.integers(0, 256, (512, 512, 3), np.uint8))
    (field,) = with_uncertainty(fields_of(path, 1), Predictor(redness, "float32"), SEARCH)
    assert field.disagreement == pytest.approx(0, abs=1e-6)
    assert field.uncertainty > 0.05


def test_fields_at_the_edge_of_a_small_slide(write, redness) -> None:
    path = write(np.full((100, 90, 3), 128, np.uint8))
    field = Field(path, 0, 0, 90, 100, np.zeros(1))
    (found,) = with_uncertainty([field], Predictor(redness, "float32"), SEARCH)
    assert found.uncertainty == pytest.approx(math.log(2), abs=1e-3)
