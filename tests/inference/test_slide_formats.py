"""The same slide in another format gives the same mask."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from genselfdiff.inference.engine import segment
from genselfdiff.inference.many import plan_outputs


def test_an_ome_zarr_is_segmented_as_the_tiff_is(
    write_slide: Callable[..., Path],
    picture: Callable[..., np.ndarray],
    darkness_model: Path,
    tmp_path: Path,
) -> None:
    zarr = pytest.importorskip("zarr")
    pixels = picture(300, 410)
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="w", zarr_format=2)
    array = group.create_array("0", shape=pixels.shape, chunks=(100, 90, 3), dtype="u1")
    array[...] = pixels
    scale = [{"type": "scale", "scale": [0.5, 0.5, 1]}]
    axes = [{"name": "y", "unit": "micrometer"}, {"name": "x", "unit": "micrometer"}, {"name": "c"}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs.update({"multiscales": [{"axes": axes, "datasets": datasets}]})
    expected = tmp_path / "tiff_mask.tif"
    segment(write_slide(pixels), expected, darkness_model)
    result = segment(tmp_path / "a.ome.zarr", tmp_path / "mask.tif", darkness_model, overlay=True)
    assert result.mpp == 0.5
    found = tifffile.imread(tmp_path / "mask.tif")
    np.testing.assert_array_equal(found, tifffile.imread(expected))
    assert 0.1 < found.mean() < 0.9


def test_a_zarr_folder_is_planned_as_one_slide(tmp_path: Path) -> None:
    slide = tmp_path / "a.ome.zarr"
    slide.mkdir()
    (slide / "0").mkdir()
    assert plan_outputs([slide], tmp_path / "mask.tif").pairs == ((slide, tmp_path / "mask.tif"),)
    pairs = plan_outputs([tmp_path], tmp_path / "masks").pairs
    assert pairs == ((slide, tmp_path / "masks" / "a.ome_mask.tif"),)
