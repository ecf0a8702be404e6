"""Slides by URL have the pixels of the same files on a disk, and are fetched with few requests."""

import io
import logging
import multiprocessing
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import tifffile
from generated_slides import picture, write_slide
from PIL import Image
from range_server import RangeServer

from genselfdiff import open_slide
from genselfdiff.errors import InputError
from genselfdiff.slides import fingerprint as fingerprints
from genselfdiff.slides import read_image
from genselfdiff.slides.fingerprint import fingerprint
from genselfdiff.storage import read_ahead
from genselfdiff.storage.places import Url
from genselfdiff.storage.remote_file import RemoteFile

KINDS: dict[str, dict[str, Any]] = {
    "jpeg": {},
    "raw tiles": {"compression": None},
    "planes": {"planarconfig": "separate", "compression": "zlib"},
    "strips": {"tile": None, "rowsperstrip": 16, "compression": "zlib"},
    "raw strips": {"tile": None, "rowsperstrip": 16, "compression": None},
}


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_those_of_the_file(kind: str, tmp_path: Path, server: RangeServer) -> None:
    path = write_slide(tmp_path / "slide.tif", picture(500, 700), **KINDS[kind])
    with open_slide(path) as local, open_slide(server.add(path)) as remote:
        assert local.levels == remote.levels
        assert local.mpp == remote.mpp
        for level, size in enumerate(local.levels):
            window = 0, 0, size.width, size.height, level
            assert np.array_equal(local.read_level(*window), remote.read_level(*window))
        views = [slide.at_mpp(1.3) for slide in (local, remote)]
        assert np.array_equal(*(view.read(10, 20, 200, 100) for view in views))
        assert np.array_equal(*(slide.thumbnail(200) for slide in (local, remote)))


def test_a_slide_of_a_memory_filesystem_is_read(slide: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/slides/a.tif", slide.read_bytes())
    assert np.array_equal(read_image("memory://slides/a.tif"), read_image(slide))
    with open_slide("memory://slides/a.tif") as remote:
        assert (remote.path.name, str(remote.path)) == ("a.tif", "memory://slides/a.tif")


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_pictures_are_read_whole(name: str, tmp_path: Path, server: RangeServer) -> None:
    Image.fromarray(picture(300, 400)).save(tmp_path / name, exif=_turned())
    local = read_image(tmp_path / name)
    assert local.shape == (400, 300, 3), "it is turned"
    assert np.array_equal(read_image(server.add(tmp_path / name)), local)


def _turned() -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return exif.tobytes()


def test_directories_take_few_requests(tmp_path: Path, server: RangeServer) -> None:
    path = write_slide(tmp_path / "slide.tif", picture(2000, 2000), compression=None)
    assert path.stat().st_size > 15e6
    with open_slide(server.add(path)):
        assert len(server.requests) <= 6
        assert sum(last - first for _, first, last in server.requests) < 1e6


def test_tiles_are_fetched_once_and_neighbours_together(
    tmp_path: Path, server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_ahead, "LONGEST", 2**18)
    path = write_slide(tmp_path / "slide.tif", picture(2000, 3000), compression=None)
    address = server.add(path)
    server.latency = 0.002
    with open_slide(address) as remote:
        view = remote.at_mpp(0.5)
        server.requests.clear()
        view.hold_rows(view.width, 256)
        windows = [(x, y, 256, 256) for y in range(0, 1745, 192) for x in range(0, 2745, 192)]
        view.expect(iter(windows))
        with open_slide(path) as local:
            for window in windows:
                assert np.array_equal(view.read(*window), local.at_mpp(0.5).read(*window))
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        tiles = len(page.dataoffsets)
        size = sum(page.databytecounts)
    spans = sorted((first, last) for _, first, last in server.requests)
    assert all(before[1] < after[0] for before, after in pairwise(spans))
    assert sum(last - first + 1 for first, last in spans) <= 1.05 * size
    assert len(spans) < tiles / 3
    assert 1 < server.most_at_once <= 16


def test_the_tiles_of_a_window_are_fetched_together(slide: Path, server: RangeServer) -> None:
    server.latency = 0.02
    with open_slide(server.add(slide)) as remote:
        opened = len(server.requests)
        remote.read_level(300, 300, 900, 900)  # 8 x 8 tiles, 8 in a row of them
        assert len(server.requests) - opened <= 8
        with open_slide(slide) as local:
            expected = local.read_level(300, 300, 900, 900)
        assert np.array_equal(remote.read_level(300, 300, 900, 900), expected)
        assert len(server.requests) - opened <= 8, "what is decoded is not fetched again"


def test_the_fingerprint_of_a_slide_is_the_same_here_and_there(
    slide: Path, server: RangeServer
) -> None:
    url = Url(server.add(slide))
    assert fingerprint(url) == fingerprint(slide)
    served = len(server.requests)
    with open_slide(url) as remote:
        remote.read_level(0, 0, 500, 500)
    assert fingerprint(url) == fingerprint(slide)
    assert len(server.requests) == served + 2, "what was read whole is not fetched again"


def test_a_large_slide_is_told_by_its_etag_and_by_samples(
    slide: Path, server: RangeServer, in_parts: None
) -> None:
    url = Url(server.add(slide))
    before = fingerprint(url)
    fetched = sum(last - first + 1 for _, first, last in server.requests[1:])
    assert fetched <= 16 * 1000
    fingerprints._known.clear()
    assert fingerprint(url) == before
    content = server.files["/slide.tif"]
    server.etags["/slide.tif"] = '"2"'
    other_etag = fingerprint(url)
    server.etags["/slide.tif"] = '"1"'
    server.files["/slide.tif"] = content[:-100] + bytes(100)
    fingerprints._known.clear()
    assert len({before, other_etag, fingerprint(url)}) == 3


def test_a_forked_process_reads_on(slide: Path, server: RangeServer) -> None:
    with open_slide(server.add(slide)) as remote:
        before = remote.read_level(0, 0, 300, 300)
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        child = context.Process(target=lambda: queue.put(remote.read_level(900, 900, 300, 300)))
        child.start()
        there = queue.get(timeout=30)
        child.join(30)
        assert np.array_equal(there, remote.read_level(900, 900, 300, 300))
        assert np.array_equal(before, remote.read_level(0, 0, 300, 300))


def test_what_is_held_of_whole_files_is_bounded(
    tmp_path: Path, server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genselfdiff.storage import remote_file

    monkeypatch.setattr(remote_file, "WHOLE_BYTES", 2500)
    remote_file._whole_files.reset()
    for name in "abcd":
        (tmp_path / name).write_bytes(name.encode() * 1000)
        with RemoteFile(Url(server.add(tmp_path / name))) as file:
            assert file.hold_whole() == name.encode() * 1000
    assert sum(map(len, remote_file._whole_files._held.values())) <= 2500


def test_the_stream_over_a_file_behaves_as_one(slide: Path, server: RangeServer) -> None:
    with RemoteFile(Url(server.add(slide))) as file:
        stream, content = file.metadata().stream(), slide.read_bytes()
        assert stream.read(10) == content[:10]
        assert stream.seek(-20, io.SEEK_END) == len(content) - 20
        assert stream.read() == content[-20:]
        assert stream.read(5) == b""
        stream.seek(200_000)
        assert stream.read(300_000) == content[200_000:500_000]


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("http://HOST/a.mrxs", "OpenSlide, which reads no URLs: copy the file"),
        ("http://HOST/empty.tif", "is empty"),
        ("http://HOST/text.tif", "is no TIFF"),
        ("http://HOST/none.tif", "no such file"),
        ("memory://nowhere/none.tif", "no such file"),
        ("nonsense://a/b.tif", "cannot be read"),
        ("zip://a.tif::http://HOST/a.zip", "one URL within another"),
    ],
)
def test_what_cannot_be_read_is_told(address: str, told: str, server: RangeServer) -> None:
    server.files |= {"/a.mrxs": b"MIRAX", "/empty.tif": b"", "/text.tif": b"some text"}
    with pytest.raises(InputError, match=told):
        open_slide(address.replace("HOST", server.address.removeprefix("http://")))


def test_damage_is_told_as_of_a_file(
    slide: Path, server: RangeServer, caplog: pytest.LogCaptureFixture
) -> None:
    content = bytearray(slide.read_bytes())
    with tifffile.TiffFile(slide) as tiff:
        at = tiff.pages.first.dataoffsets[5]
    content[at : at + 200] = bytes(200)
    slide.write_bytes(content)
    address = server.add(slide)
    with open_slide(address) as remote, pytest.raises(InputError, match="cannot be decoded"):
        remote.read_level(0, 0, 1500, 1300)
    with caplog.at_level(logging.WARNING), open_slide(address, on_error="blank") as remote:
        remote.read_level(0, 0, 1500, 1300)
        assert remote.blank_tiles == 1


def test_a_truncated_slide_is_told(slide: Path, server: RangeServer) -> None:
    slide.write_bytes(slide.read_bytes()[:400_000])
    address = server.add(slide)
    with pytest.raises(InputError):
        open_slide(address)


def test_without_fsspec_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(InputError, match=r"pip install 'genselfdiff\[storage\]'"):
        open_slide("s3://bucket/a.svs")
