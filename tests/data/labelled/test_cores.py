import numpy as np
import pytest
from scipy import ndimage

from genselfdiff.data.labelled.cores import CORE_DEPTH, cores_of


def disc(size, *centres, radius):
    y, x = np.indices(size)
    numbers = np.zeros(size, np.int32)
    for number, (cy, cx) in enumerate(centres, start=1):
        numbers[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = number
    return numbers


def test_a_core_is_the_deep_part_of_its_object():
    numbers = disc((61, 61), (30, 30), radius=20)
    y, x = np.nonzero(cores_of(numbers))
    reach = np.hypot(y - 30, x - 30).max()
    assert reach == pytest.approx(20 * (1 - CORE_DEPTH), abs=1)


def test_cores_do_not_touch_where_objects_do():
    numbers = disc((40, 70), (20, 20), (20, 45), radius=15)
    assert ndimage.label(numbers != 0)[1] == 1
    labels, count = ndimage.label(cores_of(numbers), np.ones((3, 3)))
    assert count == 2
    assert {labels[20, 20], labels[20, 45]} == {1, 2}


def test_every_object_has_a_core_inside_it():
    random = np.random.default_rng(0)
    numbers = np.kron(np.arange(1, 65).reshape(8, 8), np.ones((5, 5), np.int32))
    numbers[random.random(numbers.shape) < 0.4] = 0
    cores = cores_of(numbers)
    assert not cores[numbers == 0].any()
    assert set(numbers[cores]) == set(numbers[numbers != 0])


def test_an_object_goes_on_beyond_the_image():
    numbers = disc((61, 61), (30, 30), radius=20)
    np.testing.assert_array_equal(cores_of(numbers)[30:][0], cores_of(numbers[30:])[0])


@pytest.mark.parametrize("value", [0, 7])
def test_an_image_of_one_value(value):
    numbers = np.full((4, 5), value)
    np.testing.assert_array_equal(cores_of(numbers), numbers != 0)


def test_one_pixel_is_its_own_core():
    numbers = np.zeros((5, 5), np.uint16)
    numbers[2, 2] = 300
    np.testing.assert_array_equal(cores_of(numbers), numbers != 0)
