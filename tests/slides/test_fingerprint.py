import errno
import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from genselfdiff.errors import InputError
from genselfdiff.slides import fingerprint as module
from genselfdiff.slides.fingerprint import fingerprint


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A slide that is read in samples: an eighth of it."""
    monkeypatch.setattr(module, "WHOLE", 2**16)
    monkeypatch.setattr(module, "_SAMPLE", 2**12)
    path = tmp_path / "large.svs"
    path.write_bytes(np.random.default_rng(0).bytes(2**19))
    return path


def touched(path: Path, place: int) -> str:
    """The fingerprint after a change of one byte that leaves size and time as they were."""
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 255]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    return fingerprint(path)


@pytest.mark.parametrize("place", [0, 1, 2**17, 2**19 - 1])
def test_every_byte_of_a_slide_counts(tmp_path: Path, place: int) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(np.random.default_rng(0).bytes(2**19))
    before = fingerprint(path)
    assert touched(path, place) != before
    assert touched(path, place) == before


def test_time_place_and_name_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"pixels")
    copy = tmp_path / "b.tif"
    copy.write_bytes(b"pixels")
    os.utime(copy, (1, 1))
    assert fingerprint(copy) == fingerprint(path)


def test_of_a_large_slide_time_and_samples_all_over_it_count(large: Path) -> None:
    before = fingerprint(large)
    for place in (0, 2**19 - 1, 2**15 * 8 + 2**15 - 1):
        assert fingerprint(large) == before
        changed = touched(large, place)
        assert (changed == before) == (place not in (0, 2**19 - 1))
        touched(large, place)
    os.utime(large, (1, 1))
    assert fingerprint(large) != before


def test_a_large_slide_is_read_in_part(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0
    opened = module.open_input

    def counting(path: Path):
        stream = opened(path)
        right = stream.read

        class Counting:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                stream.close()

            def seek(self, place):
                return stream.seek(place)

            def read(self, size):
                nonlocal read
                read += size
                return right(size)

        return Counting()

    monkeypatch.setattr(module, "open_input", counting)
    fingerprint(large)
    assert read == 2**16


@pytest.mark.parametrize("changed", ["0/0/0", ".zattrs"])
def test_a_folder_is_told_by_all_files_in_it(tmp_path: Path, changed: str) -> None:
    slide = tmp_path / "a.zarr"
    (slide / "0" / "0").mkdir(parents=True)
    (slide / "0" / "0" / "0").write_bytes(b"chunk")
    (slide / ".zattrs").write_bytes(b"{}")
    before = fingerprint(slide)
    shutil.copytree(slide, tmp_path / "b.zarr")
    assert fingerprint(tmp_path / "b.zarr") == before
    assert touched(slide / changed, 0) and fingerprint(slide) != before
    touched(slide / changed, 0)
    assert fingerprint(slide) == before
    (slide / "0" / "0" / "1").touch()
    assert fingerprint(slide) != before


@pytest.mark.parametrize(
    ("name", "beside"),
    [("a.mrxs", "a/Data0000.dat"), ("a.vms", "a_1.jpg"), ("a.vms", "a.opt"), ("a.vmu", "a.ngr")],
)
def test_formats_of_several_files_are_told_by_all_of_them(
    tmp_path: Path, name: str, beside: str
) -> None:
    other = tmp_path / beside
    other.parent.mkdir(exist_ok=True)
    other.write_bytes(b"pixels")
    slide = tmp_path / name
    slide.write_bytes(b"index")
    before = fingerprint(slide)
    touched(other, 3)
    assert fingerprint(slide) != before
    touched(other, 3)
    (tmp_path / "a_mask.tif").write_bytes(b"is no part of it")
    (tmp_path / "b.jpg").write_bytes(b"nor this")
    assert fingerprint(slide) == before


def test_a_disk_that_fails_while_a_slide_is_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(module, "open_input", lambda path: Failing())
    slide = tmp_path / "a.svs"
    slide.write_bytes(b"pixels")
    with pytest.raises(InputError, match=r"a\.svs: cannot be read: Input/output error"):
        fingerprint(slide)


def test_nothing_is_read_again_where_nothing_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"pixels")
    monkeypatch.setattr(module, "_SETTLED", -(10**9))  # as if it had been written long ago
    before = fingerprint(path)
    with monkeypatch.context() as patch:
        patch.setattr(module, "open_input", None)
        assert fingerprint(path) == before
    path.write_bytes(b"others")
    assert fingerprint(path) != before
