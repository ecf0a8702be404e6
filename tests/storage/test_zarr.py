"""An OME-Zarr in object storage is a slide as one in a folder is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from generated_slides import picture

from genselfdiff import open_slide, segment
from genselfdiff.errors import InputError
from genselfdiff.slides import find_slides
from genselfdiff.slides.fingerprint import fingerprint
from genselfdiff.storage.places import Url

zarr = pytest.importorskip("zarr")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Two levels of an OME-Zarr of version 0.5, of 0.5 um."""
    folder = tmp_path / "image.zarr"
    group = zarr.open_group(folder, mode="w", zarr_format=3)
    pixels = np.moveaxis(picture(600, 700), -1, 0)
    datasets = []
    for level, step in enumerate((1, 2)):
        stored = pixels[:, ::step, ::step]
        group.create_array(str(level), data=np.ascontiguousarray(stored), chunks=(3, 128, 128))
        scale = {"type": "scale", "scale": [1, 0.5 * step, 0.5 * step]}
        datasets.append({"path": str(level), "coordinateTransformations": [scale]})
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    return folder


@pytest.fixture
def stored(image: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same in memory."""
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    memory = fsspec.filesystem("memory")
    for path in image.rglob("*"):
        if path.is_file():
            memory.pipe_file(f"/lab/image.zarr/{path.relative_to(image)}", path.read_bytes())
    return "memory://lab/image.zarr"


def test_pixels_and_masks_are_those_of_the_folder(
    image: Path, stored: str, darkness_model: Path, tmp_path: Path
) -> None:
    with open_slide(image) as local, open_slide(stored) as remote:
        assert (local.levels, local.mpp) == (remote.levels, remote.mpp)
        window = 0, 0, 700, 600
        assert np.array_equal(local.read_level(*window), remote.read_level(*window))
    segment(stored, tmp_path / "mask.tif", darkness_model)
    segment(image, tmp_path / "other.tif", darkness_model)
    with open_slide(tmp_path / "mask.tif") as mask, open_slide(tmp_path / "other.tif") as other:
        assert np.array_equal(mask.read_level(*window), other.read_level(*window))
    assert [str(found) for found in find_slides(["memory://lab/"])] == [stored]


def test_one_chunk_makes_another_slide(stored: str) -> None:
    before = fingerprint(Url(stored))
    memory = fsspec.filesystem("memory")
    chunk = next(name for name in memory.store if "/c/" in name)
    memory.pipe_file(chunk, memory.cat_file(chunk))
    assert fingerprint(Url(stored)) != before


def failing(times: int, read: Callable[..., bytes]) -> Callable[..., bytes]:
    left = [times]

    def cat_file(self: Any, path: str, *args: Any, **more: Any) -> bytes:
        if "/c/" in path:
            left[0] -= 1
            if left[0] >= 0:
                raise OSError("hung up")
        return read(self, path, *args, **more)

    return cat_file


def test_chunks_are_asked_for_again(
    image: Path, stored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = MemoryFileSystem.cat_file
    with open_slide(image) as local:
        expected = local.read_level(0, 0, 700, 600)
    monkeypatch.setattr(MemoryFileSystem, "cat_file", failing(3, read))
    with open_slide(stored, on_error="blank") as remote:
        assert np.array_equal(remote.read_level(0, 0, 700, 600), expected)
    monkeypatch.setattr(MemoryFileSystem, "cat_file", failing(10_000, read))
    with (
        open_slide(stored, on_error="blank") as remote,
        pytest.raises(InputError, match=r"image\.zarr/.*hung up, after 6 tries"),
    ):
        remote.read_level(0, 0, 700, 600)


def test_a_chunk_that_is_far_too_large_is_not_fetched(stored: str) -> None:
    memory = fsspec.filesystem("memory")
    chunk = next(name for name in memory.store if "/0/c/" in name)
    memory.pipe_file(chunk, bytes(2**25))
    with open_slide(stored) as remote, pytest.raises(InputError, match="more bytes than can be"):
        remote.read_level(0, 0, 700, 600)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("memory://lab/none.zarr", "is no readable OME-Zarr"),
        ("https://host/image.zarr", "is not read from a web server"),
    ],
)
def test_what_is_not_read_is_told(address: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        open_slide(address)
