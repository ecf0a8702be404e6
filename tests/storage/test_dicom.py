"""Slides in DICOM by URL: one file on a web server, a series in a bucket."""

from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from generated_slides import picture
from range_server import RangeServer

from genselfdiff import open_slide, plan_outputs, segment
from genselfdiff.errors import InputError
from genselfdiff.slides import find_slides, is_folder_of_slides, read_image
from genselfdiff.slides.discovery import name_of
from genselfdiff.slides.fingerprint import fingerprint
from genselfdiff.slides.formats.dicom import frames, series
from genselfdiff.storage.places import Url

pytest.importorskip("pydicom")
from dicom_files import frames_of, instance, put_frames, uid

PIXELS = picture(500, 700)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two levels, one of them not compressed, and a label."""
    folder = tmp_path_factory.mktemp("dicom") / "1.2.840"
    folder.mkdir()
    label = ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]
    plain = {"syntax": uid.ImplicitVRLittleEndian, "colours": "RGB"}
    for number, made in enumerate(
        (
            instance(PIXELS[::2, ::2], 1.0, **plain),
            instance(PIXELS, 0.5),
            instance(PIXELS[:100, :100], 0.5, ImageType=label),
        )
    ):
        made.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


@pytest.fixture
def bucket(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same in memory://lab/1.2.840/."""
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    series._series_of_url.cache_clear()
    memory = fsspec.filesystem("memory")
    for path in folder.iterdir():
        memory.pipe_file(f"/lab/1.2.840/{path.name}", path.read_bytes())
    return memory


SLIDE = "memory://lab/1.2.840/"


@pytest.mark.parametrize("address", [SLIDE, f"{SLIDE}0.dcm"])
def test_a_series_is_one_slide(address: str, bucket: Any, folder: Path) -> None:
    with open_slide(folder) as local, open_slide(address) as remote:
        assert (local.levels, local.mpp) == (remote.levels, remote.mpp)
        for level, size in enumerate(local.levels):
            window = 0, 0, size.width, size.height, level
            assert np.array_equal(local.read_level(*window), remote.read_level(*window))
    local = folder if address == SLIDE else folder / "0.dcm"
    assert fingerprint(Url(address)) == fingerprint(local)


def test_folders_of_slides(bucket: Any, folder: Path, tmp_path: Path) -> None:
    slide = Url(SLIDE)
    assert not is_folder_of_slides(slide)
    assert find_slides([SLIDE]) == find_slides(["memory://lab/"]) == [slide]
    assert name_of(slide) == name_of(folder) == "1.2.840"
    assert plan_outputs([SLIDE], tmp_path / "mask.tif").pairs == ((slide, tmp_path / "mask.tif"),)
    instance(PIXELS, series="9").save_as(tmp_path / "other.dcm", enforce_file_format=True)
    bucket.put(str(tmp_path / "other.dcm"), "/lab/1.2.840/other.dcm")
    bucket.pipe_file("/lab/1.2.840/b.dcm", b"none")
    assert is_folder_of_slides(slide)
    firsts = ["0.dcm", "other.dcm"]
    assert [found.name for found in find_slides([SLIDE])] == firsts
    with pytest.raises(InputError, match="holds 2 DICOM series: name a file"):
        fingerprint(slide)


def test_a_changed_level_makes_another_slide(bucket: Any, in_parts: None) -> None:
    before = fingerprint(Url(SLIDE))
    data = bucket.cat_file("/lab/1.2.840/0.dcm")
    bucket.pipe_file("/lab/1.2.840/0.dcm", data)
    assert fingerprint(Url(SLIDE)) != before, "it was written at another time"


def test_masks_are_those_of_the_folder(
    bucket: Any, folder: Path, darkness_model: Path, tmp_path: Path
) -> None:
    segment(SLIDE, tmp_path / "a.tif", darkness_model)
    segment(folder, tmp_path / "b.tif", darkness_model)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_one_file_of_a_web_server(folder: Path, server: RangeServer, in_parts: None) -> None:
    address = server.add(folder / "1.dcm")
    assert find_slides([address]) == [Url(address)]
    assert np.array_equal(read_image(address), read_image(folder / "1.dcm"))


def large(path: Path, **options: Any) -> Path:
    made = instance(picture(1500, 2000), syntax=uid.ExplicitVRLittleEndian, colours="RGB")
    made.save_as(path, enforce_file_format=True)
    return path


def test_few_requests(tmp_path: Path, server: RangeServer) -> None:
    path = large(tmp_path / "a.dcm")
    assert path.stat().st_size > 9e6
    with open_slide(server.add(path)) as slide:
        opening = len(server.requests)
        assert opening <= 3
        slide.read_level(0, 0, 64, 64)
        assert len(server.requests) == opening + 1
        slide.read_level(640, 640, 640, 64)
        assert len(server.requests) == opening + 2, "neighbours come together"


def test_tiles_are_fetched_once_and_ahead(
    tmp_path: Path, server: RangeServer, darkness_model: Path, in_parts: None
) -> None:
    path = large(tmp_path / "a.dcm")
    segment(server.add(path), tmp_path / "a.tif", darkness_model, tissue=False)
    fetched = sum(last - first + 1 for _, first, last in server.requests)
    assert fetched < 1.3 * 1500 * 2000 * 3
    assert len(server.requests) < 60


def test_frames_without_a_table(
    tmp_path: Path, server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = instance(PIXELS)
    put_frames(made, frames_of(made), has_bot=False)
    made.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    address = server.add(tmp_path / "a.dcm")
    assert np.array_equal(read_image(address), read_image(tmp_path / "a.dcm"))
    monkeypatch.setattr(frames, "_WALKED", 1000)
    with pytest.raises(InputError, match="has no table of where its frames are: copy the slide"):
        open_slide(address)


def test_a_folder_that_a_web_server_lists(folder: Path, server: RangeServer) -> None:
    links = '<a href="../">up</a>'
    for path in folder.iterdir():
        server.files[f"/series/{path.name}"] = path.read_bytes()
        links += f'<a href="{path.name}">{path.name}</a>'
    server.files["/series/"] = links.encode()
    with open_slide(f"{server.address}/series/") as remote, open_slide(folder) as local:
        assert remote.levels == local.levels
    (found,) = find_slides([f"{server.address}/series/"])
    assert str(found).endswith("/series/")
