"""Files under hidden names, in folders where others put something under these names first."""

import os
import resource
import stat
from pathlib import Path

import pytest

from genselfdiff import working_files
from genselfdiff.errors import OutputError
from genselfdiff.files import atomic_file, write_once, write_text
from genselfdiff.resumable_file import ResumableFile, _line, unfinished
from genselfdiff.working_files import create_beside, open_own

PURPOSE = {"slide": "a.svs"}


def link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def dangling_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim.with_name("new"))


def hard_link(path: Path, victim: Path) -> None:
    os.link(victim, path)


def pipe(path: Path, victim: Path) -> None:
    os.mkfifo(path)


def folder(path: Path, victim: Path) -> None:
    path.mkdir()


def folder_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim.parent)


PLANTED = [link, dangling_link, hard_link, pipe, folder, folder_link]


@pytest.fixture
def victim(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    path = tmp_path / "elsewhere" / "thesis"
    path.write_bytes(b"precious")
    yield path
    assert os.listdir(path.parent) == ["thesis"]
    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize("plant", PLANTED)
@pytest.mark.parametrize("name", [".m.tif.partial", ".m.tif.journal"])
def test_a_resumable_file_opens_nothing_but_its_own(tmp_path, victim, plant, name):
    if name == ".m.tif.journal":  # so that it is asked for
        (tmp_path / ".m.tif.partial").write_bytes(b"begun")
    plant(tmp_path / name, victim)
    assert unfinished(tmp_path / "m.tif") is None
    with (
        pytest.raises(OutputError, match=rf"{name}: is a link or somebody else's"),
        ResumableFile(tmp_path / "m.tif", PURPOSE),
    ):
        pass
    assert os.path.lexists(tmp_path / name)


def test_a_link_put_there_while_the_file_grows_is_not_followed(tmp_path, victim):
    with (
        pytest.raises(OutputError, match=r"\.m\.tif\.journal: is a link"),
        ResumableFile(tmp_path / "m.tif", PURPOSE) as file,
    ):
        link(tmp_path / ".m.tif.journal", victim)
        file.record({})
    (tmp_path / ".m.tif.journal").unlink(missing_ok=True)
    with (
        pytest.raises(OutputError, match=r"m\.tif: .*partial was removed or replaced"),
        ResumableFile(tmp_path / "m.tif") as file,
    ):
        file.partial.unlink()
        link(file.partial, victim)
        file.complete()
    assert not os.path.lexists(tmp_path / "m.tif")


@pytest.mark.parametrize("plant", PLANTED)
def test_a_temporary_file_goes_round_what_is_not_its_own(tmp_path, victim, plant):
    planted = tmp_path / ".a.txt.gsd-0.txt"
    plant(planted, victim)
    before = planted.lstat()
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"
    if plant is not hard_link:  # one name more or less of a file that stays
        assert planted.lstat().st_ino == before.st_ino
        assert set(os.listdir(tmp_path)) == {"a.txt", planted.name, "elsewhere"}


def test_a_target_that_is_a_link_is_replaced_and_not_followed(tmp_path, victim):
    link(tmp_path / "a.txt", victim)
    write_text(tmp_path / "a.txt", "new")
    assert not (tmp_path / "a.txt").is_symlink()
    link(tmp_path / "once", victim)
    assert not write_once(tmp_path / "once", "new")


def test_a_link_in_place_of_a_temporary_file_is_not_followed(tmp_path, victim):
    victim.chmod(0o600)
    with (
        pytest.raises(OutputError, match=r"a\.txt: cannot be written"),
        atomic_file(tmp_path / "a.txt") as temporary,
    ):
        temporary.unlink()
        link(temporary, victim)
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["elsewhere"]


def test_what_killed_writers_have_left_goes_and_what_others_write_stays(tmp_path):
    target = tmp_path / "a.txt"
    for number in (0, 1, 2):
        (tmp_path / f".a.txt.gsd-{number}.txt").write_text("half")
    other = ".b.txt.gsd-0.txt"
    (tmp_path / other).write_text("half")
    (tmp_path / ".a.txt.mine.txt").write_text("mine")
    path, stream = create_beside(target)
    with stream:
        write_text(target, "new")
        assert path.exists()
    path.unlink()
    assert set(os.listdir(tmp_path)) == {"a.txt", other, ".a.txt.mine.txt"}


def test_without_locks_nothing_is_taken_for_abandoned(tmp_path, monkeypatch):
    monkeypatch.setattr(working_files, "lock", lambda opened: None)
    (tmp_path / ".a.txt.gsd-0.txt").write_text("somebody is writing this")
    write_text(tmp_path / "a.txt", "new")
    assert set(os.listdir(tmp_path)) == {"a.txt", ".a.txt.gsd-0.txt"}
    assert (tmp_path / ".a.txt.gsd-0.txt").read_text() == "somebody is writing this"


def test_a_system_that_maps_users_gives_all_files_to_another(tmp_path, monkeypatch):
    (tmp_path / "own").write_text("x")
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    with open_own(tmp_path / "own") as stream:
        assert stream.read() == b"x"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_not_ours(tmp_path):
    (tmp_path / ".m.tif.partial").write_text("x")
    os.chown(tmp_path / ".m.tif.partial", 1234, -1)
    with pytest.raises(OutputError, match="somebody else's"), ResumableFile(tmp_path / "m.tif"):
        pass
    assert (tmp_path / ".m.tif.partial").read_text() == "x"


def test_a_file_that_another_process_begins_meanwhile_stays(tmp_path, monkeypatch):
    replace, begun = os.replace, []

    def replace_and_begin(source, target):
        replace(source, target)
        begun.append(create_beside(tmp_path / "m.tif"))

    monkeypatch.setattr(os, "replace", replace_and_begin)
    write_text(tmp_path / "m.tif", "x")
    ((path, file),) = begun
    with file:
        assert working_files.is_at(file.fileno(), path)


@pytest.mark.parametrize("step", ["open_own", "lock", "is_at"])
def test_a_signal_while_a_file_is_begun_leaves_none(tmp_path, monkeypatch, step):
    done = getattr(working_files, step)

    def interrupted(*args, **options):
        monkeypatch.undo()
        done(*args, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(f"genselfdiff.resumable_file.{step}", interrupted)
    with pytest.raises(KeyboardInterrupt), ResumableFile(tmp_path / "m.tif"):
        pass
    assert not list(tmp_path.iterdir())


def test_an_empty_file_that_another_run_holds_stays(tmp_path):
    with ResumableFile(tmp_path / "m.tif") as first:
        with pytest.raises(OutputError, match="another run"), ResumableFile(tmp_path / "m.tif"):
            pass
        first.stream.write(b"whole")
        first.complete()
    assert (tmp_path / "m.tif").read_bytes() == b"whole"


def test_a_disk_that_is_full_ends_what_is_written_once_in_one_line(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(OutputError, match=r"job\.json: cannot be written: File too large"):
            write_once(tmp_path / "job.json", "x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "lines",
    [
        [{"purpose": [PURPOSE]}],
        [["purpose"]],
        [3],
        [{"purpose": PURPOSE}, {"end": "all"}],
        [{"purpose": PURPOSE}, {"end": -5}],
        [{"purpose": PURPOSE}, {}],
        [{"purpose": PURPOSE}, [1]],
    ],
)
def test_journals_of_other_content_tell_nothing(tmp_path, lines):
    (tmp_path / ".m.tif.partial").write_bytes(b"begun")
    (tmp_path / ".m.tif.journal").write_bytes(b"".join(map(_line, lines)))
    with ResumableFile(tmp_path / "m.tif", PURPOSE) as file:
        assert not file.records
