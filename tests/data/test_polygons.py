import numpy as np
import pytest

from genselfdiff.data import polygons
from genselfdiff.data.labelled_folder import IGNORED
from genselfdiff.data.polygons import Region, draw, outline
from genselfdiff.errors import InputError


def ring(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points, np.float64)


SQUARE = ring((2, 1), (6, 1), (6, 4), (2, 4))


def test_pixels_whose_centres_are_inside():
    classes, instances = draw([Region(3, ((SQUARE,),))], 6, 8)
    expected = np.zeros((6, 8), int)
    expected[1:4, 2:6] = 1
    np.testing.assert_array_equal(classes, 3 * expected)
    np.testing.assert_array_equal(instances, expected)


def test_an_open_outline_is_that_of_the_closed_one():
    closed = np.concatenate((SQUARE, SQUARE[:1]))
    opened = draw([Region(1, ((SQUARE,),))], 6, 8)
    np.testing.assert_array_equal(opened, draw([Region(1, ((closed,),))], 6, 8))


@pytest.fixture
def shapely():
    return pytest.importorskip("shapely")


def centres(shapely, height, width):
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return shapely.points(x, y)


@pytest.mark.parametrize("seed", range(20))
def test_as_shapely_says(seed, shapely, monkeypatch):
    monkeypatch.setattr(polygons, "_CROSSINGS_AT_ONCE", 10)  # of some rows
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    radii = rng.uniform(2, 14, (9, 1))
    points = (12.3, 9.1) + radii * np.stack((np.cos(angles), np.sin(angles)), axis=1)
    hole = (12.3, 9.1) + 0.5 * radii * np.stack((np.cos(angles), np.sin(angles)), axis=1)
    classes, _ = draw([Region(1, ((points, hole),))], 20, 25)
    shape = shapely.Polygon(points).difference(shapely.Polygon(hole))
    np.testing.assert_array_equal(classes, shapely.contains(shape, centres(shapely, 20, 25)))


@pytest.mark.parametrize("seed", range(20))
def test_centres_on_an_outline_are_inside(seed, shapely):
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 7))
    points = 6 + rng.uniform(1, 9, (7, 1)) * np.stack((np.cos(angles), np.sin(angles)), axis=1)
    points = np.rint(2 * points) / 2 + 0.5 * (seed % 2)
    shape = shapely.Polygon(points)
    if not shape.is_valid:
        shape = shapely.make_valid(shape)
    classes, _ = draw([Region(1, ((points,),))], 14, 15)
    np.testing.assert_array_equal(classes, shapely.intersects(shape, centres(shapely, 14, 15)))


def test_all_parts_are_one_object_and_no_hole_of_one_cuts_another():
    around = [
        np.array([(0, 0), (8, 0), (8, 6), (0, 6)]),
        np.array([(1, 1), (7, 1), (7, 5), (1, 5)]),
    ]
    for parts in (((SQUARE,), tuple(around)), (tuple(around), (SQUARE,))):
        classes, instances = draw([Region(2, parts)], 6, 8)
        expected = np.ones((6, 8), int)
        expected[1:5, 1:7], expected[1:4, 2:6] = 0, 1
        np.testing.assert_array_equal(classes, 2 * expected)
        np.testing.assert_array_equal(instances, expected)


@pytest.mark.parametrize("label", [0, IGNORED])
def test_what_is_no_object_takes_others_away(label):
    right = ring((4, 0), (9, 0), (9, 9), (4, 9))
    classes, instances = draw([Region(1, ((SQUARE,),)), Region(label, ((right,),))], 6, 8)
    assert (classes[1:4, 2:4] == 1).all()
    assert (instances[1:4, 2:4] == 1).all()
    assert (classes[:, 4:] == label).all()
    assert not instances[:, 4:].any()


@pytest.mark.parametrize(
    "vertices",
    [None, 3, [None], [3], ["ab"], [(1,)], [("1", None)], [(float("nan"), 1)], [(1, 1e300)], [{}]],
)
def test_vertices_that_are_no_places(vertices):
    with pytest.raises(InputError, match="with vertices that are no places"):
        outline(vertices)


def test_vertices_with_more_than_two_numbers():
    np.testing.assert_array_equal(outline([(1, 2, 3), ("4.5", 5, None, 6)]), [(1, 2), (4.5, 5)])
    assert outline([]).shape == (0, 2)


def test_later_ones_lie_on_top():
    later = ring((4, 0), (9, 0), (9, 9), (4, 9))
    classes, instances = draw([Region(1, ((SQUARE,),)), Region(2, ((later,),))], 6, 8)
    assert (classes[1:4, 2:4] == 1).all()
    assert (classes[:, 4:] == 2).all()
    assert np.unique(instances).tolist() == [0, 1, 2]


def test_what_is_outside_or_a_line_is_nothing():
    outside = SQUARE + 100
    line = ring((0, 0), (7, 5))
    classes, instances = draw([Region(1, ((outside,),)), Region(1, ((line,),))], 6, 8)
    assert not classes.any()
    assert not instances.any()
