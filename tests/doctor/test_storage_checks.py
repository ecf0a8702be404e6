"""Folders whose file systems lack what runs rely on."""

import errno
import fcntl
import os
import time
from types import SimpleNamespace

import pytest

from genselfdiff.doctor import storage_checks
from genselfdiff.doctor.storage_checks import storage_findings


def test_a_folder_as_it_should_be_stays_as_it_was(tmp_path, found):
    findings = found(storage_findings(tmp_path / "not" / "there"))
    assert "(there would be made)" in findings["folder"].text
    assert not list(tmp_path.iterdir())
    working = {"folder", "locks", "renaming", "hard links", "clock"}
    assert {findings[subject].grade for subject in working} == {"ok"}


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, found):
    def refuse(*arguments):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "mkdir", refuse)
    findings = found(storage_findings(tmp_path))
    assert list(findings) == ["folder"]
    assert findings["folder"].grade == "wrong"
    assert "Read-only file system" in findings["folder"].text


def test_a_file_in_the_place_of_the_folder(tmp_path, found):
    (tmp_path / "file").touch()
    assert found(storage_findings(tmp_path / "file"))["folder"].grade == "wrong"


@pytest.mark.parametrize(
    ("answer", "grade"), [(OSError(errno.ENOTSUP, "no"), "warning"), (None, "wrong")]
)
def test_locks_that_are_not_there_or_keep_nobody_off(tmp_path, answer, grade, monkeypatch, found):
    def flock(opened, how):
        if answer is not None:
            raise answer

    monkeypatch.setattr(fcntl, "flock", flock)
    assert found(storage_findings(tmp_path))["locks"].grade == grade


@pytest.mark.parametrize(("name", "subject"), [("link", "hard links"), ("setxattr", "attributes")])
def test_what_can_be_missed(tmp_path, name, subject, monkeypatch, found):
    def refuse(*arguments):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, name, refuse, raising=False)
    finding = found(storage_findings(tmp_path))[subject]
    assert finding.grade == "warning"
    assert "Operation not supported" in finding.text


def test_a_disk_that_is_full(tmp_path, monkeypatch, found):
    status = SimpleNamespace(f_bavail=0, f_frsize=4096, f_files=10, f_favail=10)
    monkeypatch.setattr(os, "statvfs", lambda folder: status)

    def refuse(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    findings = list(storage_findings(tmp_path))
    assert [f.grade for f in findings if f.subject == "space"] == ["wrong", "warning"]
    assert found(findings)["renaming"].grade == "wrong"


@pytest.mark.parametrize(("hours", "said"), [(1, "behind"), (-1, "ahead of"), (0, "agrees")])
def test_a_clock_that_is_off(tmp_path, hours, said, monkeypatch, found):
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600 * hours)
    finding = found(storage_findings(tmp_path))["clock"]
    assert said in finding.text
    assert finding.grade == ("warning" if hours else "ok")


def test_the_file_system_is_named(tmp_path):
    (tmp_path / "data" / "a b").mkdir(parents=True)
    table = tmp_path / "mounts"
    table.write_text(
        "/dev/vda / ext4 rw 0 0\n"
        f"auto {tmp_path}/data autofs rw 0 0\n"
        f"server:/data {tmp_path}/data nfs4 rw,vers=4.2 0 0\n"
        f"pool {tmp_path}/data/a\\040b lustre rw,localflock 0 0\n"
    )
    mounted = storage_checks.mounted
    assert mounted(tmp_path / "data", table) == ("nfs4 over a network", "rw,vers=4.2")
    assert mounted(tmp_path / "data" / "a b", table)[1] == "rw,localflock"
    assert mounted(tmp_path, table) == ("ext4", "rw")


def test_locks_of_one_machine(tmp_path, monkeypatch, found):
    monkeypatch.setattr(storage_checks, "mounted", lambda place: ("lustre", "rw,localflock"))
    finding = found(storage_findings(tmp_path))["locks"]
    assert finding.grade == "warning"
    assert "localflock" in finding.text
