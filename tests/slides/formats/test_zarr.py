"""OME-Zarr images of both versions, as folders."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genselfdiff.errors import InputError
from genselfdiff.slides import find_slides, open_slide, read_image

zarr = pytest.importorskip("zarr")

ORDERS = ["tczyx", "cyx", "yxc"]


def write_zarr(
    path: Path,
    picture: np.ndarray,
    *,
    axes: str = "cyx",
    version: str = "0.5",
    steps: Sequence[int] = (1, 2, 4),
    unit: str | None = "micrometer",
    mpp: tuple[float, float] = (0.25, 0.25),
    series: str = "",
    **options: Any,
) -> Path:
    """Write a pyramid with chunks of 64 pixels, levels told apart by their colours."""
    group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
    if series:
        layout = {"bioformats2raw.layout": 3}
        group.attrs.update({"ome": {"version": version, **layout}} if version == "0.5" else layout)
        group = group.create_group(series)
    datasets = []
    for index, step in enumerate(steps):
        level = picture if step == 1 else picture[::step, ::step] // 2 + np.uint8(step)
        ordered = level.transpose(["yxc".index(axis) for axis in axes if axis in "yxc"])
        present = dict(zip("yxc", level.shape, strict=True))
        ordered = ordered.reshape([present.get(axis, 1) for axis in axes])
        chunks = [64 if axis in "yx" else 1 for axis in axes]
        array = group.create_array(
            str(index), shape=ordered.shape, chunks=chunks, dtype=ordered.dtype, **options
        )
        array[...] = ordered
        scale = [{"y": mpp[1] * step, "x": mpp[0] * step}.get(axis, 1.0) for axis in axes]
        transformations = [{"type": "scale", "scale": scale}]
        datasets.append({"path": str(index), "coordinateTransformations": transformations})
    units = {"unit": unit} if unit else {}
    described = [{"name": axis, **(units if axis in "yx" else {})} for axis in axes]
    multiscales = {"multiscales": [{"axes": described, "datasets": datasets, "version": version}]}
    group.attrs.update({"ome": multiscales} if version == "0.5" else multiscales)
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ORDERS)
def test_both_versions_and_all_orders(
    tmp_path: Path, picture: np.ndarray, version: str, axes: str
) -> None:
    path = write_zarr(tmp_path / "a.ome.zarr", picture, axes=axes, version=version)
    with open_slide(path) as slide:
        sizes = [(level.width, level.height, level.downsample) for level in slide.levels]
        assert sizes == [(602, 413, 1.0), (301, 207, 2.0), (151, 104, 4.0)]
        assert slide.mpp == pytest.approx(0.25)
        for index, step in enumerate((1, 2, 4)):
            expected = picture if step == 1 else picture[::step, ::step] // 2 + step
            window = slide.read_level(3, 5, 100, 90, level=index)
            np.testing.assert_array_equal(window, expected[5:95, 3:103])
    np.testing.assert_array_equal(read_image(path), picture)


def test_shards(tmp_path: Path, picture: np.ndarray) -> None:
    path = write_zarr(tmp_path / "a.zarr", picture, shards=(3, 256, 256))
    np.testing.assert_array_equal(read_image(path), picture)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_first_series_of_bioformats2raw(
    tmp_path: Path, picture: np.ndarray, version: str
) -> None:
    path = write_zarr(tmp_path / "a.zarr", picture, version=version, series="0", steps=(1,))
    label = write_zarr(tmp_path / "label.zarr", np.zeros_like(picture), steps=(1,))
    label.rename(path / "1")
    np.testing.assert_array_equal(read_image(path), picture)


@pytest.mark.parametrize(
    ("options", "mpp", "doubt"),
    [
        ({"unit": "nanometer", "mpp": (250, 250)}, 0.25, None),
        ({"unit": "\u00b5m"}, 0.25, None),
        ({"unit": "micron"}, 0.25, None),
        ({"unit": None}, None, "does not state its resolution"),
        ({"unit": "pixel"}, None, "does not state its resolution"),
        ({"mpp": (1000, 1000)}, None, "which no microscope has"),
        ({"mpp": (0.25, 0.5)}, None, "which are not square"),
    ],
)
def test_resolution(
    tmp_path: Path,
    picture: np.ndarray,
    options: dict[str, Any],
    mpp: float | None,
    doubt: str | None,
) -> None:
    with open_slide(write_zarr(tmp_path / "a.zarr", picture, **options)) as slide:
        assert slide.mpp == (mpp and pytest.approx(mpp))
        if doubt:
            with pytest.raises(InputError, match=doubt):
                slide.at_mpp(0.5)


def refused(path: Path, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        read_image(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_images_that_are_not_rgb(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "a.zarr"
    refused(write_zarr(path, picture.astype(np.uint16)), r"of uint16; an RGB image of 3 channels")
    refused(write_zarr(path, picture[..., :2]), "is c 2 x y 413 x x 602 of uint8; an RGB image")
    refused(write_zarr(path, np.dstack((picture, picture))), "is c 6 x")


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))


def first_image(told: dict[str, Any]) -> dict[str, Any]:
    return told["attributes"]["ome"]["multiscales"][0]


def test_what_is_no_image(tmp_path: Path, picture: np.ndarray) -> None:
    (tmp_path / "empty.zarr").mkdir()
    refused(tmp_path / "empty.zarr", "no readable OME-Zarr image")
    path = write_zarr(tmp_path / "a.zarr", picture, steps=(1,))
    marks = path / "zarr.json"
    whole = marks.read_text()
    for text in ("", "{", "[]", "null", whole.replace("multiscales", "plate")):
        marks.write_text(text)
        refused(path, "no readable OME-Zarr image|plate of many")
    for key, value in (("datasets", []), ("axes", ["q"]), ("datasets", [{"path": "7"}])):
        marks.write_text(whole)
        edit(marks, lambda told, new={key: value}: first_image(told).update(new))
        refused(path, "no readable OME-Zarr image")


def test_a_million_squared(tmp_path: Path, picture: np.ndarray) -> None:
    path = write_zarr(tmp_path / "a.zarr", picture, steps=(1,))
    shape = {"shape": [3, 10**6, 10**6]}
    edit(path / "0" / "zarr.json", lambda told: told.update(shape))
    refused(path, "claims 1000000 x 1000000 pixels, but is far too small")
    grid = {"name": "regular", "configuration": {"chunk_shape": [3, 10**6, 10**6]}}
    edit(path / "0" / "zarr.json", lambda told: told.update(chunk_grid=grid))
    refused(path, "chunks of 1000000 x 1000000 pixels, too large")


def test_chunks_that_are_missing_are_the_fill_value(tmp_path: Path, picture: np.ndarray) -> None:
    path = write_zarr(tmp_path / "a.zarr", picture, steps=(1,), fill_value=243)
    for channel in range(3):
        (path / "0" / "c" / str(channel) / "1" / "5").unlink()
    expected = picture.copy()
    expected[64:128, 320:384] = 243
    np.testing.assert_array_equal(read_image(path), expected)


def test_a_damaged_chunk(tmp_path: Path, picture: np.ndarray) -> None:
    path = write_zarr(tmp_path / "a.zarr", picture, steps=(1,))
    (path / "0" / "c" / "1" / "5" / "2").write_bytes(b"no chunk")
    refused(path, r"tile \(column 0, row 1\) of level 0, array 0, cannot be decoded")
    with open_slide(path, on_error="blank") as slide:
        pixels = slide.read_level(0, 0, 602, 413)
        assert slide.blank_tiles == 1
    assert (pixels[256:, :256] == 255).all()
    np.testing.assert_array_equal(pixels[:256], picture[:256])


def test_without_the_package(
    tmp_path: Path, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_zarr(tmp_path / "a.zarr", picture, steps=(1,))
    monkeypatch.setitem(sys.modules, "zarr", None)
    refused(path, r"pip install 'genselfdiff\[zarr\]'")


def test_a_zarr_folder_is_one_slide(tmp_path: Path, picture: np.ndarray) -> None:
    path = write_zarr(tmp_path / "more" / "a.ome.zarr", picture)
    (path / "0" / "notes.png").write_bytes(b"no slide")
    (tmp_path / "b.tif").touch()
    assert find_slides([tmp_path]) == [tmp_path / "b.tif", path]
    assert find_slides([path]) == [path]


def test_a_forked_process_reads_the_same(tmp_path: Path, picture: np.ndarray) -> None:
    with open_slide(write_zarr(tmp_path / "a.zarr", picture)) as slide:
        assert (slide.read_level(0, 0, 602, 413) == picture).all()
        status = 1
        child = os.fork()
        try:
            status = int(not (slide.read_level(0, 0, 602, 413) == picture).all())
        finally:
            if child == 0:  # whatever happens, the child must not go on with the tests
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
