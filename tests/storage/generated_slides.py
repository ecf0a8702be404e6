"""Pyramids to be stored somewhere."""

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray


def picture(height: int, width: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    waves = [128 + 60 * np.sin(x / 9 + k) + 60 * np.cos(y / (7 + k) + x / 31) for k in range(3)]
    return np.clip(np.stack(waves, axis=-1), 0, 255).astype(np.uint8)


def write_slide(path: Path, pixels: NDArray[np.uint8], **options: Any) -> Path:
    layout = {"tile": (128, 128), "photometric": "rgb", "compression": "jpeg"} | options
    layout |= {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
    is_planar = layout.get("planarconfig") == "separate"
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for step in (1, 2, 4):
            level = pixels[::step, ::step]
            level = np.moveaxis(level, -1, 0) if is_planar else level
            writer.write(level, subfiletype=int(step > 1), metadata=None, **layout)
    return path
