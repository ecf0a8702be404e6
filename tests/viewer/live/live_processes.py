"""Processes that tests start, and wait for."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SECONDS = 240.0  # of a machine that does much else


def eventually(found: Callable[[], Any]) -> Any:
    """What ``found`` gives, once that is true."""
    end = time.monotonic() + SECONDS
    while not (result := found()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return result


@contextmanager
def viewing(*arguments: str | Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """``gsd view``, and the address that it prints."""
    command = [Path(sys.executable).with_name("gsd"), "view", "--no-browser", *arguments]
    quiet = {"stderr": subprocess.DEVNULL, "text": True}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, **quiet)
    try:
        assert server.stdout is not None
        yield server, server.stdout.readline().strip()
    finally:
        server.kill()
        server.communicate()


def children(process: int) -> list[int]:
    """Processes that one has started."""
    tasks = Path(f"/proc/{process}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def runs(process: int) -> bool:
    """Whether it is there, and more than what is left of one that has ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False
