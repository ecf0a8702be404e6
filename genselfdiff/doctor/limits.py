"""What a container or a batch system lets this process have of the machine.

Linux tells it in the files of control groups, https://docs.kernel.org/admin-guide/cgroup-v2.html
and .../cgroup-v1/. The limits of a group hold for all groups below it, so the least counts.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_UNLIMITED = 2**60
"""Bytes; the first version writes a number near 2**63 where there is no limit."""


@dataclass(frozen=True)
class Limits:
    """Of the control groups that this process is in; None: there is none.

    Attributes:
        processors: processor seconds a second.
        memory: in bytes.
    """

    processors: float | None
    memory: int | None


def limits_here(root: Path = Path("/")) -> Limits:
    """Read them; ``root`` is the folder that has ``proc`` and ``sys``."""
    processors: list[float] = []
    memory: list[int] = []
    for group in _groups(root):
        with suppress(OSError, ValueError):
            quota, period = (group / "cpu.max").read_text().split()
            processors.append(int(quota) / int(period))  # "max" is none
        with suppress(OSError, ValueError):
            quota = (group / "cpu.cfs_quota_us").read_text()
            if int(quota) > 0:
                processors.append(int(quota) / int((group / "cpu.cfs_period_us").read_text()))
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):
                memory.append(int((group / name).read_text()))
    return Limits(
        min(processors, default=None),
        min((size for size in memory if size < _UNLIMITED), default=None),
    )


def _groups(root: Path) -> Iterator[Path]:
    """Folders of the groups of this process, and of those that they are in."""
    mounted = root / "sys" / "fs" / "cgroup"
    with suppress(OSError):
        for line in (root / "proc" / "self" / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            base = mounted / controllers
            # In a container the path can be the host's, and its own group lies at the base.
            place = base / path.lstrip("/")
            yield place
            yield from (folder for folder in place.parents if folder.is_relative_to(base))
