import numpy as np
import pytest
import shapely

from genselfdiff.data.polygons import Region, draw


def ring(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points, np.float64)


SQUARE = ring((2, 1), (6, 1), (6, 4), (2, 4))


def test_pixels_whose_centres_are_inside():
    classes, instances = draw([Region(3, (SQUARE,))], 6, 8)
    expected = np.zeros((6, 8), int)
    expected[1:4, 2:6] = 1
    np.testing.assert_array_equal(classes, 3 * expected)
    np.testing.assert_array_equal(instances, expected)


def test_an_open_outline_is_that_of_the_closed_one():
    closed = np.concatenate((SQUARE, SQUARE[:1]))
    opened = draw([Region(1, (SQUARE,))], 6, 8)
    np.testing.assert_array_equal(opened, draw([Region(1, (closed,))], 6, 8))


@pytest.mark.parametrize("seed", range(20))
def test_as_shapely_says(seed):
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    radii = rng.uniform(2, 14, (9, 1))
    points = (12.3, 9.1) + radii * np.stack((np.cos(angles), np.sin(angles)), axis=1)
    hole = (12.3, 9.1) + 0.5 * radii * np.stack((np.cos(angles), np.sin(angles)), axis=1)
    classes, _ = draw([Region(1, (points, hole))], 20, 25)
    shape = shapely.Polygon(points).difference(shapely.Polygon(hole))
    x, y = np.meshgrid(np.arange(25) + 0.5, np.arange(20) + 0.5)
    np.testing.assert_array_equal(classes, shapely.contains_xy(shape, x, y))


def test_later_ones_lie_on_top():
    later = ring((4, 0), (9, 0), (9, 9), (4, 9))
    classes, instances = draw([Region(1, (SQUARE,)), Region(2, (later,))], 6, 8)
    assert (classes[1:4, 2:4] == 1).all()
    assert (classes[:, 4:] == 2).all()
    assert np.unique(instances).tolist() == [0, 1, 2]


def test_what_is_outside_or_a_line_is_nothing():
    outside = SQUARE + 100
    line = ring((0, 0), (7, 5))
    classes, instances = draw([Region(1, (outside,)), Region(1, (line,))], 6, 8)
    assert not classes.any()
    assert not instances.any()
