"""Zarrs that mean no good: what they claim, hold and link to takes neither memory nor secrets."""

import gzip
import json
import os
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest

from genselfdiff.errors import InputError
from genselfdiff.slides import open_slide, read_image

zarr = pytest.importorskip("zarr")
numcodecs = pytest.importorskip("numcodecs")

SIDE = 64
BOMB = bytes(48 * 2**20)
"""What the one chunk inflates to, of 12 kB."""
AXES = [{"name": name, "type": "space", "unit": "micrometer"} for name in "cyx"]


def datasets(path: str = "0", count: int = 1) -> dict[str, Any]:
    transformation = {"type": "scale", "scale": [1, 0.5, 0.5]}
    dataset = {"path": path, "coordinateTransformations": [transformation]}
    return {"multiscales": [{"axes": AXES, "datasets": [dataset] * count}]}


def write_v2(folder: Path, chunk: bytes | None, **changes: Any) -> Path:
    """A Zarr of version 2 with one chunk, which is made if it is None."""
    (folder / "0").mkdir(parents=True)
    (folder / ".zgroup").write_text('{"zarr_format": 2}')
    (folder / ".zattrs").write_text(json.dumps(datasets()))
    array = {
        "zarr_format": 2, "shape": [3, SIDE, SIDE], "chunks": [3, SIDE, SIDE], "dtype": "|u1",
        "compressor": None, "fill_value": 0, "order": "C", "filters": None,
    }  # fmt: skip
    (folder / "0" / ".zarray").write_text(json.dumps(array | changes))
    if chunk is not None:
        (folder / "0" / "0.0.0").write_bytes(chunk)
    return folder


def refused(path: Path, match: str) -> None:
    tracemalloc.start()
    with pytest.raises(InputError, match=match) as caught:
        read_image(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < len(BOMB) / 2
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "zlib": zlib.compress,
    "gzip": gzip.compress,
    "zstd": imagecodecs.zstd_encode,
    "lz4": lambda data: numcodecs.LZ4().encode(data),
    "blosc": lambda data: numcodecs.Blosc().encode(data),
}


@pytest.mark.parametrize("codec", ENCODERS)
def test_chunks_of_version_2(tmp_path: Path, codec: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE), np.uint8)
    whole = ENCODERS[codec](pixels.tobytes())
    path = write_v2(tmp_path / "a.zarr", whole, compressor={"id": codec})
    np.testing.assert_array_equal(read_image(path), pixels.transpose(1, 2, 0))
    chunk = path / "0" / "0.0.0"
    chunk.write_bytes(ENCODERS[codec](BOMB))
    refused(path, "cannot be decoded")
    for kept in (0, 1, 5, 20, len(whole) // 2):
        chunk.write_bytes(whole[:kept])
        refused(path, "cannot be decoded")


@pytest.mark.parametrize("codec", ["gzip", "zstd", "blosc"])
@pytest.mark.parametrize("shards", [None, (3, 2 * SIDE, 2 * SIDE)])
def test_chunks_of_version_3(
    tmp_path: Path, codec: str, shards: tuple[int, int, int] | None
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 2 * SIDE, 2 * SIDE), np.uint8)
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
    compressors = {
        "gzip": zarr.codecs.GzipCodec(), "zstd": zarr.codecs.ZstdCodec(),
        "blosc": zarr.codecs.BloscCodec(),
    }  # fmt: skip
    array = group.create_array(
        "0", shape=pixels.shape, dtype="u1", chunks=(3, SIDE, SIDE), shards=shards,
        compressors=compressors[codec],
    )  # fmt: skip
    array[...] = pixels
    group.attrs.update({"ome": datasets()})
    np.testing.assert_array_equal(read_image(tmp_path / "a.zarr"), pixels.transpose(1, 2, 0))
    bomb = ENCODERS[codec](BOMB)
    if shards is None:
        (tmp_path / "a.zarr" / "0" / "c" / "0" / "0" / "0").write_bytes(bomb)
    else:
        places = np.array([[0, len(bomb)]] * 4, "<u8").tobytes()
        index = numcodecs.CRC32C(location="end").encode(places)
        (tmp_path / "a.zarr" / "0" / "c" / "0" / "0" / "0").write_bytes(bomb + bytes(index))
    refused(tmp_path / "a.zarr", "cannot be decoded")


@pytest.mark.parametrize("member", ["0/0.0.0", "0/.zarray", ".zattrs", ".zgroup"])
@pytest.mark.parametrize("kind", ["pipe", "device", "elsewhere", "sparse"])
def test_members_that_are_no_files_of_the_folder(tmp_path: Path, member: str, kind: str) -> None:
    path = write_v2(tmp_path / "a.zarr", bytes(3 * SIDE * SIDE))
    content = (path / member).read_bytes()
    (path / member).unlink()
    if kind == "pipe":
        os.mkfifo(path / member)
    elif kind == "device":
        (path / member).symlink_to("/dev/zero")
    elif kind == "elsewhere":
        (tmp_path / "secret").write_bytes(content)
        (path / member).symlink_to("../secret" if member[0] == "." else "../../secret")
    else:
        with (path / member).open("wb") as file:
            file.truncate(2**40)
    told = {"pipe": "pipe or device", "device": "pipe or device", "elsewhere": "out of the folder"}
    refused(path, told.get(kind, "more than can be of use"))


def test_links_within_the_folder(tmp_path: Path) -> None:
    path = write_v2(tmp_path / "real" / "a.zarr", bytes([9]) * (3 * SIDE * SIDE))
    (path / "0" / "0.0.0").rename(path / "chunk")
    (path / "0" / "0.0.0").symlink_to("../chunk")
    (path / "0" / "circle").symlink_to(path)
    (tmp_path / "link.zarr").symlink_to(path)
    assert (read_image(tmp_path / "link.zarr") == 9).all()


@pytest.mark.parametrize(
    ("attributes", "match"),
    [
        ("[" * 100_000, "no readable OME-Zarr"),
        ('{"multiscales": ' + "[" * 100_000 + "]" * 100_000 + "}", "no readable OME-Zarr"),
        (json.dumps(datasets("../b.zarr/0")), "no readable OME-Zarr"),
        (json.dumps(datasets("/etc")), "no readable OME-Zarr"),
        (json.dumps(datasets(count=20_000)), "20000 levels"),
        (json.dumps(datasets()).replace("[1, 0.5", f"[{'9' * 5000}, 0.5"), "no readable OME-Zarr"),
    ],
)
def test_attributes(tmp_path: Path, attributes: str, match: str) -> None:
    write_v2(tmp_path / "b.zarr", bytes(3 * SIDE * SIDE))
    path = write_v2(tmp_path / "a.zarr", bytes(3 * SIDE * SIDE))
    (path / ".zattrs").write_text(attributes)
    refused(path, match)


@pytest.mark.parametrize("scale", ['["a", "b", "c"]', f"[1, {'9' * 400}, {'9' * 400}]", "[1]"])
def test_a_scale_that_cannot_be_is_none(tmp_path: Path, scale: str) -> None:
    path = write_v2(tmp_path / "a.zarr", bytes(3 * SIDE * SIDE))
    attributes = json.dumps(datasets()).replace("[1, 0.5, 0.5]", scale)
    (path / ".zattrs").write_text(attributes)
    with open_slide(path) as slide:
        assert slide.mpp is None


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"filters": [{"id": "zlib"}], "compressor": {"id": "zlib"}}, "filter zlib is not read"),
        ({"compressor": {"id": "bz2"}}, "compressor bz2 is not read"),
        ({"filters": [{"id": "pickle"}]}, "no readable OME-Zarr"),
        ({"chunks": [3, 2**20, 2**20]}, "too large to decode"),
        ({"chunks": [1, 2**28, 1]}, "too large to decode"),
        ({"shape": [3, 2**40, 2**40]}, "far too small"),
    ],
)
def test_arrays(tmp_path: Path, changes: dict[str, Any], match: str) -> None:
    refused(write_v2(tmp_path / "a.zarr", bytes(3 * SIDE * SIDE), **changes), match)
