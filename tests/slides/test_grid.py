import pytest

from genselfdiff.slides import tile_starts


@pytest.mark.parametrize("stride", [1, 5, 6, 8])
@pytest.mark.parametrize("length", range(1, 40))
def test_every_pixel_is_covered_and_no_tile_is_spare(length: int, stride: int) -> None:
    starts = tile_starts(length, 8, stride)
    assert starts == [i * stride for i in range(len(starts))]
    assert starts[-1] + 8 >= length
    assert len(starts) == 1 or starts[-2] + 8 < length


def test_short_images_get_one_tile() -> None:
    assert tile_starts(3, 256, 192) == [0]


@pytest.mark.parametrize("sizes", [(0, 8, 4), (10, 8, 0), (10, 8, 9), (10, 0, 0)])
def test_sizes_out_of_range(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="no tiles"):
        tile_starts(*sizes)
