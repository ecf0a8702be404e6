"""The same slide in another format gives the same mask."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from genselfdiff.segmenting.one_slide import segment
from genselfdiff.segmenting.plan import plan_outputs

Writer = Callable[[Path, np.ndarray], None]


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


def _as_tiff(**options: object) -> Writer:
    def write(path: Path, pixels: np.ndarray) -> None:
        tifffile.imwrite(path, pixels, photometric="rgb", metadata=None, **options)

    return write


def _as_planes(path: Path, pixels: np.ndarray) -> None:
    planes = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate", tile=(128, 128))


FORMATS: dict[str, Writer] = {
    "tiles.svs": _as_tiff(tile=(240, 240), compression="lzw"),
    "strips.tif": _as_tiff(rowsperstrip=7, compression="zstd"),
    "big.btf": _as_tiff(bigtiff=True, byteorder=">"),
    "webp.tif": _as_tiff(tile=(64, 64), compression="webp", compressionargs={"lossless": True}),
    "planes.tif": _as_planes,
    "a.png": lambda path, pixels: Image.fromarray(pixels).save(path),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("size", [(333, 251), (64, 1), (1, 131), (129, 65)])
def test_every_pixel_to_the_right_and_bottom_edge_is_predicted(
    darkness_model: Path, tmp_path: Path, name: str, size: tuple[int, int]
) -> None:
    """Sizes that are no multiple of anything; the model tells dark from light pixel by pixel."""
    dark = np.random.default_rng(0).random(size) < 0.5
    pixels = np.where(dark[..., None], np.uint8([90, 40, 130]), np.uint8([225, 200, 220]))
    FORMATS[name](tmp_path / name, pixels)
    segment(tmp_path / name, tmp_path / "mask.tif", darkness_model, mpp=0.5, tissue=False)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "mask.tif"), dark)
