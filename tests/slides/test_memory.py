"""Reading takes memory that follows what is asked, not what is there."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from genselfdiff.slides import open_slide

SINGLE_STRIPS: dict[str, dict[str, object]] = {
    "grey 16": {"samples": 1, "dtype": "u2"},
    "rgb 16": {"samples": 3, "dtype": "u2"},
    "rgba 8": {"samples": 4, "dtype": "u1", "extrasamples": ["unassalpha"]},
    "rgba 16": {"samples": 4, "dtype": "u2", "extrasamples": ["unassalpha"]},
    "ycbcr": {"samples": 3, "dtype": "u1", "photometric": "ycbcr", "subsampling": (1, 1)},
}


@pytest.mark.parametrize("kind", SINGLE_STRIPS)
def test_one_large_strip_takes_little_beside_its_pixels(
    tiff: Callable[..., Path], kind: str
) -> None:
    options = dict(SINGLE_STRIPS[kind])
    samples, dtype = options.pop("samples"), np.dtype(str(options.pop("dtype")))
    side = 2000
    pixels = np.full((side, side, samples) if samples != 1 else (side, side), 77, dtype)
    path = tiff(pixels, rowsperstrip=side, compression="zlib", **options)
    with open_slide(path) as slide:
        tracemalloc.start()
        try:
            slide.read_level(0, 0, 1, 1)
            peak = tracemalloc.get_traced_memory()[1]
            bound = slide.memory_bound()
        finally:
            tracemalloc.stop()
    assert peak < (3.5 + 1.1 * samples * dtype.itemsize) * side**2 + 20 * 2**20
    assert peak < bound
