import numpy as np
import pytest
import tifffile
from scipy import ndimage

from genselfdiff.masks import MaskWriter, PyramidShape
from genselfdiff.objects import write_objects
from genselfdiff.objects.instances import InstanceSplitter
from genselfdiff.objects.label_array import number_objects


def field(seed: int = 0) -> np.ndarray:
    """Discs of two classes that touch each other and the edges, with noise that makes holes."""
    random = np.random.default_rng(seed)
    mask = np.zeros((150, 200), np.uint8)
    y, x = np.mgrid[:150, :200]
    for _ in range(60):
        distance = np.hypot(y - random.uniform(0, 150), x - random.uniform(0, 200))
        mask[distance < random.uniform(3, 12)] = random.choice([1, 2])
    mask[random.random(mask.shape) < 0.02] = 0
    return mask


def test_against_scipy():
    mask = field()
    found = number_objects(mask)
    count = 0
    for value in (1, 2):
        labelled, number = ndimage.label(mask == value)
        count += number
        pairs = np.unique(np.stack((labelled, found.numbers))[:, mask == value], axis=1)
        assert pairs.shape[1] == number == len(np.unique(pairs[1]))
        assert (found.classes[pairs[1]] == value).all()
    np.testing.assert_array_equal(found.numbers == 0, mask == 0)
    assert len(found.classes) == count + 1
    assert found.classes[0] == 0


@pytest.mark.parametrize("seed_distance", [None, 6.0])
@pytest.mark.parametrize("min_area", [0.0, 30.0])
def test_they_are_those_of_gsd_objects(tmp_path, seed_distance, min_area):
    mask = field(1)
    with MaskWriter(
        tmp_path / "mask.tif",
        PyramidShape(200, 150, None),
        palette=[(0, 0, 0)] * 3,
        class_names=["a", "b", "c"],
    ) as writer:
        writer.write_rows(mask)
    write_objects(
        tmp_path / "mask.tif",
        labels=tmp_path / "numbers.tif",
        instances=seed_distance is not None,
        seed_distance=seed_distance,
        min_area=min_area,
    )
    splitter = None if seed_distance is None else InstanceSplitter(seed_distance, min_area)
    found = number_objects(mask, splitter=splitter, min_area=min_area)
    np.testing.assert_array_equal(found.numbers, tifffile.imread(tmp_path / "numbers.tif"))


def test_a_mask_without_objects():
    found = number_objects(np.zeros((5, 7), np.uint8))
    assert found.numbers.shape == (5, 7)
    assert not found.numbers.any()
    assert found.classes.tolist() == [0]
