"""A bucket of S3: its protocol, spoken by moto's server on this machine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from generated_slides import picture

from genselfdiff import open_slide, segment
from genselfdiff.errors import InputError, OutputError
from genselfdiff.slides import find_slides, read_image
from genselfdiff.storage import object_ranges
from genselfdiff.storage.places import Url
from genselfdiff.storage.uploading import send

s3fs = pytest.importorskip("s3fs")
moto = pytest.importorskip("moto.server")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The file system of fsspec with a bucket "slides"."""
    server = moto.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    filesystem = s3fs.S3FileSystem()
    filesystem.makedirs("slides", exist_ok=True)  # it outlives the server
    yield filesystem
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_a_slide_in_a_bucket_is_read(slide: Path, bucket: Any) -> None:
    bucket.put(str(slide), "slides/deep/a.tif")
    assert np.array_equal(read_image("s3://slides/deep/a.tif"), read_image(slide))
    assert [str(found) for found in find_slides(["s3://slides/"])] == ["s3://slides/deep/a.tif"]
    with pytest.raises(InputError, match="no such file"):
        open_slide("s3://slides/none.tif")


def test_a_series_of_dicom_is_read(bucket: Any, tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    from dicom_files import instance

    for level, step in enumerate((1, 2)):
        made = instance(picture(500, 700)[::step, ::step], 0.5 * step)
        path = tmp_path / f"{level}.dcm"
        made.save_as(path, enforce_file_format=True)
        bucket.put(str(path), f"slides/1.2/{path.name}")
    (found,) = find_slides(["s3://slides/1.2/"])
    for address in (str(found), "s3://slides/1.2/1.dcm"):
        with open_slide(address) as remote, open_slide(tmp_path) as local:
            assert remote.levels == local.levels
            window = 0, 0, 700, 500
            assert np.array_equal(remote.read_level(*window), local.read_level(*window))


def test_an_object_that_changes_is_told(
    slide: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_ranges, "_LOOK_AGAIN", 3600)  # S3 itself refuses
    bucket.put(str(slide), "slides/a.tif")
    with open_slide("s3://slides/a.tif", on_error="blank") as remote:
        remote.read_level(0, 0, 100, 100)
        bucket.pipe("slides/a.tif", slide.read_bytes()[::-1])
        with pytest.raises(InputError, match="was changed while it was read"):
            remote.read_level(0, 0, 1500, 1300)


def test_masks_go_to_a_bucket_and_are_found_there(
    slide: Path, bucket: Any, darkness_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    segment(slide, tmp_path / "m.tif", darkness_model, geojson=True)
    for _ in range(2):
        result = segment(slide, "s3://slides/masks/m.tif", darkness_model, geojson=True)
        for name in ("m.tif", "m.geojson"):
            assert bucket.cat_file(f"slides/masks/{name}") == (tmp_path / name).read_bytes()
    assert result.finished_before
    with pytest.raises(OutputError, match=r"s3://no-bucket/m\.tif"):
        segment(slide, "s3://no-bucket/m.tif", darkness_model)


def test_a_large_file_is_sent_in_parts(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = []
    upload = s3fs.S3FileSystem._call_s3

    async def count(self: Any, method: str, *args: Any, **more: Any) -> Any:
        parts.append(method)
        return await upload(self, method, *args, **more)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", count)
    path = tmp_path / "large.tif"
    path.write_bytes(bytes(110 * 2**20))
    send(path, Url("s3://slides/large.tif"))
    assert parts.count("upload_part") == 3
    assert parts[-2:] == ["complete_multipart_upload", "head_object"]
