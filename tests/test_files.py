import errno
import os

import pytest

from genselfdiff.errors import OutputError
from genselfdiff.files import atomic_file, write_text


def test_file_appears_whole(tmp_path):
    target = tmp_path / "a.txt"
    write_text(target, "new")
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_failure_leaves_the_old_file_and_no_rest(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(OutputError, match=r"nowhere/a\.txt: cannot be written: No such file"):
        write_text(tmp_path / "nowhere" / "a.txt", "x")


def test_full_disk_is_told_with_the_name_of_the_file(tmp_path):
    target = tmp_path / "a.txt"
    with (
        pytest.raises(OutputError, match=r"a\.txt: cannot be written: No space left on device"),
        atomic_file(target),
        open("/dev/full", "w") as full,
    ):
        full.write("x")
    assert os.listdir(tmp_path) == []


def test_errors_about_other_files_pass_through(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "a"):
        (tmp_path / "input").read_text()
    with pytest.raises(BrokenPipeError), atomic_file(tmp_path / "a"):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_a_folder_that_vanishes_is_told(tmp_path):
    (tmp_path / "run").mkdir()
    with (
        pytest.raises(OutputError, match=r"run/a: cannot be written: No such file"),
        atomic_file(tmp_path / "run" / "a") as temporary,
    ):
        temporary.unlink()
        (tmp_path / "run").rmdir()


def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "x")
        with atomic_file(tmp_path / "b") as temporary:
            temporary.unlink()
            temporary.touch(mode=0o600)
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in "ab"] == [0o640, 0o640]
