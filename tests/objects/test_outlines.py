"""Objects as polygons: painted again they are the mask, and shapely finds nothing wrong."""

import tracemalloc

import numpy as np
import pytest
from scipy import ndimage

from genselfdiff.objects.outlines import Outline, OutlineTracer


def trace(mask: np.ndarray, rows: int, min_area: float = 0) -> list[Outline]:
    tracer = OutlineTracer(mask.shape[1], min_area)
    found = [o for y in range(0, len(mask), rows) for o in tracer.push(mask[y : y + rows])]
    return found + tracer.finish()


def same(a: list[Outline], b: list[Outline]) -> bool:
    def plain(found: list[Outline]) -> list[object]:
        return [(o.label, o.area, o.perimeter, [r.tolist() for r in o.rings]) for o in found]

    return plain(a) == plain(b)


def paint(outlines: list[Outline], shape: tuple[int, int]) -> np.ndarray:
    """Fill the polygons: each upward side adds its class to all pixels on its right."""
    steps = np.zeros((shape[0], shape[1] + 1), np.int64)
    for outline in outlines:
        for ring in outline.rings:
            for (x, y0), (x1, y1) in zip(ring[:-1].tolist(), ring[1:].tolist(), strict=True):
                if x == x1:
                    sign = 1 if y1 < y0 else -1
                    steps[min(y0, y1) : max(y0, y1), x] += sign * outline.label
    return np.cumsum(steps, axis=1)[:, :-1]


def check(mask: np.ndarray, heights: tuple[int, ...] = (1, 2, 3, 7)) -> list[Outline]:
    found = trace(mask, len(mask))
    np.testing.assert_array_equal(paint(found, mask.shape), mask)
    for label in range(1, int(mask.max()) + 1):
        of_class = [o for o in found if o.label == label]
        assert len(of_class) == ndimage.label(mask == label)[1]
        assert sum(o.area for o in of_class) == np.count_nonzero(mask == label)
    shapely = pytest.importorskip("shapely")
    for outline in found:
        polygon = shapely.Polygon(outline.rings[0], outline.rings[1:])
        assert polygon.is_valid, shapely.is_valid_reason(polygon)
        assert (polygon.area, polygon.length) == (outline.area, outline.perimeter)
        assert polygon.exterior.is_ccw
        assert not any(hole.is_ccw for hole in polygon.interiors)
        for ring in outline.rings:  # every corner is one: collinear points are merged
            steps = np.diff(np.concatenate((ring, ring[1:2])), axis=0)
            assert ((steps != 0).sum(axis=1) == 1).all()
            assert ((steps[1:] != 0) != (steps[:-1] != 0)).all()
    for rows in heights:
        assert same(trace(mask, rows), found)
    return found


@pytest.mark.parametrize("classes", [1, 2, 4])
@pytest.mark.parametrize("filled", [0.2, 0.6, 0.9, 1.0])
def test_random_masks(classes: int, filled: float) -> None:
    rng = np.random.default_rng(classes)
    for _ in range(40):
        shape = tuple(rng.integers(1, 15, 2))
        mask = rng.integers(1, classes + 1, shape) * (rng.random(shape) < filled)
        check(mask.astype(np.uint8))


def test_large_random_mask() -> None:
    rng = np.random.default_rng(5)
    noise = ndimage.gaussian_filter(rng.normal(size=(230, 310)), 2)
    check(np.digitize(noise, [0.0, 0.1]).astype(np.uint8), (1, 13, 100))
    check((rng.random((90, 80)) < 0.5).astype(np.uint8), (1, 11))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (6, 8)])
def test_full_and_empty(shape: tuple[int, int]) -> None:
    assert check(np.zeros(shape, np.uint8)) == []
    (found,) = check(np.full(shape, 255, np.uint8))
    height, width = shape
    corners = [[0, 0], [width, 0], [width, height], [0, height], [0, 0]]
    assert (found.label, found.rings[0].tolist()) == (255, corners)


def test_pixels_that_touch_at_corners_are_apart() -> None:
    checkerboard = np.indices((9, 10)).sum(axis=0) % 2
    assert len(check(checkerboard.astype(np.uint8))) == 45
    two_classes = checkerboard + 1
    assert len(check(two_classes.astype(np.uint8))) == 90


def test_an_object_that_meets_itself_at_a_corner_has_a_hole_there() -> None:
    mask = np.ones((4, 4), np.uint8)
    mask[1, 1] = mask[2, 2] = mask[3, 3] = 0
    (found,) = check(mask)
    assert len(found.rings) == 3


def test_nested_rings() -> None:
    y, x = np.indices((41, 41))
    distance = np.maximum(abs(y - 20), abs(x - 20))
    found = check((distance % 4 < 2).astype(np.uint8) * (distance // 4 % 3 + 1).astype(np.uint8))
    assert sorted(len(o.rings) for o in found) == [1, 2, 2, 2, 2, 2]


def test_a_comb_and_a_spiral_over_many_bands() -> None:
    comb = np.zeros((60, 61), np.uint8)
    comb[:, ::2] = 1
    comb[-1] = 1
    assert len(check(comb)) == 1
    assert len(check(comb[::-1].copy())) == 1
    y, x = np.indices((80, 80)) - 40
    spiral = (np.hypot(x, y) / 3 + np.arctan2(y, x) / np.pi) % 2 < 1
    check(spiral.astype(np.uint8))


def test_small_holes_are_filled_and_specks_dropped() -> None:
    mask = np.zeros((30, 30), np.uint8)
    mask[2:12, 2:12] = 1
    mask[4, 4] = 0
    mask[6:9, 6:9] = 2
    mask[20, 20:23] = 1
    for rows in (1, 5, 30):
        (ring, inside) = sorted(trace(mask, rows, min_area=4), key=lambda o: o.label)
        assert (ring.area, len(ring.rings), inside.area) == (91, 2, 9)
        (whole,) = trace(mask, rows, min_area=10)
        assert (whole.area, whole.perimeter, len(whole.rings)) == (100, 40, 1)


def test_memory_follows_the_width_not_the_height() -> None:
    rng = np.random.default_rng(0)
    band = (ndimage.gaussian_filter(rng.normal(size=(64, 500)), 3) > 0).astype(np.uint8)
    band[:2] = 0

    def peak(bands: int) -> int:
        tracer = OutlineTracer(500)
        tracemalloc.start()
        for _ in range(bands):
            tracer.push(band)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    assert peak(100) < 1.5 * peak(10)
