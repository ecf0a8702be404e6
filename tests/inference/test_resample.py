import numpy as np
import pytest
import torch
import torch.nn.functional as F

from genselfdiff.inference.resample import RowResizer, labels_of, resize

SIZES = [
    ((50, 70), (100, 140), 2.0),
    ((50, 70), (125, 175), 2.5),
    ((40, 60), (10, 15), 0.25),
    ((30, 20), (45, 30), 1.5),
    ((1, 1), (3, 5), 3.0),
]


def pushed(resizer: RowResizer, p: np.ndarray, rows: list[int], columns: list[int]) -> np.ndarray:
    """What comes out when ``p`` comes in blocks that end at these rows and columns."""
    bands = []
    for part in np.split(p, rows, axis=1):
        # A block is only valid until the next is asked for.
        blocks = (block.copy() for block in np.split(part, columns, axis=2))
        out = list(resizer.push(blocks))
        if out:
            bands.append(np.concatenate(out, axis=2))
    return np.concatenate(bands, axis=1)


def probabilities(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32)


@pytest.mark.parametrize(("source", "target", "scale"), SIZES)
def test_equals_interpolate(source, target, scale):
    p = probabilities(3, *source)
    expected = F.interpolate(torch.from_numpy(p)[None], size=target, mode="bilinear")[0].numpy()
    np.testing.assert_allclose(resize(p, *target, scale), expected, atol=1e-5)


@pytest.mark.parametrize(("source", "target", "scale"), [*SIZES, ((50, 70), (50, 70), 1.0)])
@pytest.mark.parametrize("step", [1, 3, 33])
@pytest.mark.parametrize("columns", [[], [1], [5, 5, 17, 18]])
def test_blocks_do_not_change_anything(source, target, scale, step, columns):
    p = probabilities(2, *source)
    resizer = RowResizer(source, target, scale)
    columns = [min(column, source[1]) for column in columns]
    blocks = pushed(resizer, p, list(range(step, source[0], step)), columns)
    np.testing.assert_array_equal(blocks, resize(p, *target, scale))


@pytest.mark.parametrize(("source", "target", "scale"), [*SIZES, ((50, 70), (50, 70), 1.0)])
def test_a_window_is_part_of_the_whole(source, target, scale):
    p = probabilities(2, *source)
    x, y, width, height = 1, 2, min(29, target[1] - 1), min(17, target[0] - 2)
    resizer = RowResizer(source, target, scale, (x, y, width, height))
    needed = p[:, resizer.rows.start : resizer.rows.stop]
    needed = needed[..., resizer.columns.start : resizer.columns.stop]
    blocks = pushed(resizer, needed, list(range(1, needed.shape[1])), [needed.shape[2] // 2])
    expected = resize(p, *target, scale)[:, y : y + height, x : x + width]
    np.testing.assert_array_equal(blocks, expected)


def test_awkward_sizes_are_filled():
    # A slide of 101 x 67 at half the model's pixel size: the view is 50 x 34, rounded.
    p = np.full((2, 34, 50), 0.5, np.float32)
    np.testing.assert_array_equal(resize(p, 67, 101, 2.0), np.full((2, 67, 101), 0.5))


def test_labels():
    p = probabilities(5, 40, 30)
    p[:, :10] = p[:1, :10]  # all equal: the lowest class
    labels = labels_of(p)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, p.argmax(0))


def test_an_empty_piece_changes_nothing():
    p = np.random.default_rng(0).random((2, 20, 9), dtype=np.float32)
    expected = resize(p, 35, 9, 1.75)
    resizer = RowResizer((20, 9), (35, 9), 1.75)
    np.testing.assert_array_equal(pushed(resizer, p, [0, 7, 7], [0, 4, 4]), expected)
