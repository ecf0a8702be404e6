import errno
import os

import pytest

from genselfdiff.errors import OutputError
from genselfdiff.files import atomic_file, refuse_existing, refuse_inputs, write_text


def test_file_appears_whole(tmp_path):
    target = tmp_path / "a.txt"
    write_text(target, "new")
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_name_too_long_to_be_written_is_told_before_the_work(tmp_path):
    target = tmp_path / ("n" * 251 + ".csv")
    with pytest.raises(OutputError, match="cannot be written: File name too long"):
        refuse_existing(target, overwrite=True)
    with pytest.raises(OutputError, match="cannot be written: File name too long"):
        write_text(target, "x")
    longest = tmp_path / ("n" * 240 + ".csv")
    refuse_existing(longest, overwrite=False)
    write_text(longest, "x")
    assert os.listdir(tmp_path) == [longest.name]


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


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("folder", "is a folder: name a file"),
        ("pipe", "is a device or a pipe"),
        ("link", "is a link to .*file: name that file itself"),
        ("dangling", "is a link to nowhere"),
        ("to a device", "is a link to /dev/null"),
        ("n" * 256, "cannot be written: File name too long"),
        ("n/" * 3000, "cannot be written: File name too long"),
        ("file/below", "cannot be written: Not a directory"),
    ],
)
def test_what_no_output_replaces(tmp_path, name, told, overwrite):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for link, goal in (("link", tmp_path / "file"), ("dangling", "nowhere")):
        (tmp_path / link).symlink_to(goal)
    (tmp_path / "to a device").symlink_to("/dev/null")
    with pytest.raises(OutputError, match=told):
        refuse_existing(tmp_path / name, overwrite)


def test_files_are_replaced_on_request_only(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="exists already: name another file, or use --overwrite"):
        refuse_existing(tmp_path / "file", overwrite=False)
    refuse_existing(tmp_path / "file", overwrite=True)
    refuse_existing(tmp_path / "new", overwrite=False)
    (tmp_path / "linked").symlink_to(tmp_path)
    refuse_existing(tmp_path / "linked" / "new", overwrite=False)
    with pytest.raises(OutputError, match=r"nowhere/new: the folder .*nowhere does not exist"):
        refuse_existing(tmp_path / "nowhere" / "new", overwrite=False)


def test_outputs_are_no_inputs(tmp_path):
    inner, link, twin = tmp_path / "in" / "a", tmp_path / "link", tmp_path / "twin"
    inner.parent.mkdir()
    inner.write_text("read")
    link.symlink_to(inner)
    os.link(inner, twin)
    for output in (inner, link, twin, tmp_path / "in" / ".." / "in" / "a"):
        with pytest.raises(OutputError, match="is an input of this run"):
            refuse_inputs([tmp_path / "b", output], [tmp_path / "c", inner])
    with pytest.raises(OutputError, match="in: holds an input of this run"):
        refuse_inputs([tmp_path / "in"], [link])
    with pytest.raises(OutputError, match="is named for two results"):
        refuse_inputs([tmp_path / "b", tmp_path / "in" / ".." / "b"], [inner])
    refuse_inputs([tmp_path / "b", tmp_path / "in" / "b", tmp_path / "in" / "a.csv"], [inner])
