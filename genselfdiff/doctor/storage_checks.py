"""Looks at a folder for masks: what its file system can do that runs rely on."""

import errno
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from genselfdiff.doctor.findings import Finding, ok, warning, wrong
from genselfdiff.errors import one_line
from genselfdiff.text import counted
from genselfdiff.working_files import lock

GIB = 2**30

_LITTLE_SPACE, _TOO_LITTLE_SPACE = 10 * GIB, GIB // 10
"""Bytes; a mask of 100,000 x 100,000 pixels takes some 50 MB."""

_FEW_NAMES = 1000

_CLOCK_SECONDS = 2.0
"""More than file systems round: FAT, to two seconds."""

_OVER_NETWORK = ("nfs", "lustre", "gpfs", "beegfs", "cifs", "smb", "ceph", "gluster", "9p", "fuse.")

_ONE_MACHINE = ("localflock", "nolock", "local_lock=all", "local_lock=flock")
"""Options of mounted Lustre and NFS with which locks keep off no other machine."""


def storage_findings(folder: Path) -> Iterator[Finding]:
    """All of a folder; one that is not there would be made."""
    place = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    if not place.is_dir():
        yield wrong("folder", f"{place}: is no folder", "name another one with -o")
        return
    kind, options = mounted(place)
    try:
        # By name, so that other programs see what we do: tempfile may make files without one.
        with tempfile.TemporaryDirectory(dir=place, prefix=".gsd-doctor-") as scratch:
            made = "" if folder.exists() else f" ({folder.name} would be made)"
            yield ok("folder", f"{place}: can be written{made}, {kind}")
            yield from space(place)
            for check in (locks, renaming, hard_links, attributes, clock):
                yield from _tried(check, Path(scratch))
    except OSError as error:
        yield wrong(
            "folder",
            f"{place}: cannot be written: {one_line(error)}",
            "name another folder with -o, or ask for the right to write there",
        )
        return
    if told := [option for option in options.split(",") if option in _ONE_MACHINE]:
        yield warning(
            "locks",
            f"the folder is mounted with {told[0]}: other machines do not see them",
            "let one machine write a mask, or mount it without (Lustre: flock)",
        )


def mounted(place: Path, table: Path = Path("/proc/self/mounts")) -> tuple[str, str]:
    """The kind of the file system of a folder, for people, and the options it is mounted with."""
    try:
        rows = [line.split() for line in table.read_text(errors="replace").splitlines()]
    except OSError:
        return "of a file system that the system does not name", ""
    here = place.resolve()
    # The last of a mount point hides those before it. Spaces in names are written \040.
    fitting = [row for row in rows if here.is_relative_to(row[1].replace(r"\040", " "))]
    if not fitting:
        return "of a file system that the system does not name", ""
    kind, options = max(enumerate(fitting), key=lambda each: (len(each[1][1]), each[0]))[1][2:4]
    over = " over a network" if kind.startswith(_OVER_NETWORK) else ""
    return f"{kind}{over}", options


def space(folder: Path) -> Iterator[Finding]:
    """Room for data, and for names of files."""
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    told = f"{free / GIB:.1f} GiB free"
    if free < _TOO_LITTLE_SPACE:
        yield wrong("space", told, "delete something, or name another folder with -o")
    elif free < _LITTLE_SPACE:
        yield warning("space", told, "delete something before a run of many slides")
    else:
        yield ok("space", told)
    if status.f_files and status.f_favail < _FEW_NAMES:
        yield warning(
            "space", f"room for {counted(status.f_favail, 'more file')}", "delete small files"
        )


def locks(folder: Path) -> Iterator[Finding]:
    """Whether a lock keeps off who comes later."""
    path = folder / "lock"
    with path.open("wb") as first, path.open("wb") as second:
        taken = lock(first.fileno())
        if taken is None:
            advice = "do not have two runs write one mask: nothing would tell them of each other"
            yield warning("locks", "this file system has none", advice)
        elif not taken or lock(second.fileno()) is not False:
            advice = "mount it with locks that work, or name another folder with -o"
            yield wrong("locks", "a locked file can be locked again", advice)
        else:
            yield ok("locks", "work between processes of this machine")


def renaming(folder: Path) -> Iterator[Finding]:
    """Whether a file takes another's place while that is open."""
    old, new = folder / "mask", folder / "growing"
    old.write_bytes(b"old")
    new.write_bytes(b"new")
    with old.open("rb") as still_open:
        os.replace(new, old)
        if (still_open.read(), old.read_bytes()) == (b"old", b"new"):
            yield ok("renaming", "replaces a file while it is read")
        else:
            advice = "name another folder with -o: readers could see half a mask"
            yield wrong("renaming", "changes a file that is read", advice)


def hard_links(folder: Path) -> Iterator[Finding]:
    """With them a file appears whole that only the first of several processes may write."""
    (folder / "one").write_bytes(b"1")
    try:
        os.link(folder / "one", folder / "two")
    except OSError as error:
        yield warning(
            "hard links",
            f"cannot be made: {one_line(error)}",
            "with --shard, start the first process some seconds before the others",
        )
    else:
        yield ok("hard links", "work")


def attributes(folder: Path) -> Iterator[Finding]:
    """Files beside a mask say in one how they were made."""
    path = folder / "attribute"
    path.write_bytes(b"")
    try:
        os.setxattr(path, "user.gsd", b"1")
    except (OSError, AttributeError) as error:
        yield warning(
            "attributes",
            f"cannot be kept: {one_line(error)}",
            "nothing for masks; with other settings, delete polygons and tables by yourself before",
        )
    else:
        yield ok("attributes", "are kept")


def clock(folder: Path) -> Iterator[Finding]:
    """Whether the clock of who keeps the files is that of this machine."""
    path = folder / "clock"
    before = time.time()
    path.write_bytes(b"1")
    after = time.time()
    written = path.stat().st_mtime
    off = max(before - written, written - after, 0.0)
    if off > _CLOCK_SECONDS:
        which = "behind" if written < before else "ahead of"
        yield warning(
            "clock",
            f"times of files are {off:.0f} s {which} this machine's clock",
            "set both by NTP: slides are known by their time, and requests to buckets are signed"
            " with it",
        )
    else:
        yield ok("clock", "agrees with the times of files")


def _tried(check: Callable[[Path], Iterator[Finding]], folder: Path) -> Iterator[Finding]:
    """What a check finds; what it stumbles over is a finding too."""
    try:
        yield from check(folder)
    except OSError as error:
        subject = check.__name__.replace("_", " ")
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            yield wrong(subject, one_line(error), "delete something, or name another folder")
        else:
            yield wrong(subject, f"fails: {one_line(error)}", "name another folder with -o")
