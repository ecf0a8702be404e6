"""What a step of the GPU day runs: a process of its own, with a limit, whose records are taken."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).parents[2]
TAIL = 50
"""Lines of its output that are told of a command that failed."""
GRACE = 5.0
"""Seconds between asking a command to end and ending it."""
LONGEST_LOG = 8 << 20
"""Bytes: what comes back from a lent machine is limited."""

Record = dict[str, Any]


@dataclass(frozen=True)
class Day:
    """What the steps know.

    Attributes:
        out: folder of the results.
        work: folder for everything else.
        rehearsal: on the CPU, with tiny sizes.
        wheels: folder of wheels that the machine lacks, or None.
        data: labelled images to train on, or None.
        train_seconds: to spend on that at most.
    """

    out: Path
    work: Path
    rehearsal: bool
    wheels: Path | None = None
    data: Path | None = None
    train_seconds: float = 0.0

    @property
    def device(self) -> str:
        """Where the steps compute."""
        return "cpu" if self.rehearsal else "cuda"

    @property
    def package(self) -> Path:
        """Where the package is installed; a rehearsal installs it there without its kernels."""
        return self.work / "package"

    @property
    def carried(self) -> Path:
        """Where the wheels are installed."""
        return self.work / "carried"

    @property
    def triton_cache(self) -> Path:
        """What Triton has compiled."""
        return self.work / "triton"

    def environment(self) -> dict[str, str]:
        """Variables of the commands."""
        folders = [self.carried, ROOT / "benchmarks", ROOT / "tests" / "kernels"]
        folders.append(ROOT / "tests" / "gpu")
        if not self.rehearsal:  # which runs what is installed already
            folders.insert(0, self.package)
        variables = {name: value for name, value in os.environ.items() if name != "GSD_KERNELS"}
        variables |= {
            "PYTHONPATH": os.pathsep.join(map(str, folders)),
            "PYTHONUNBUFFERED": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "TRITON_CACHE_DIR": str(self.triton_cache),
            "TORCHINDUCTOR_CACHE_DIR": str(self.work / "inductor"),
            "GSD_TEST_DEVICE": self.device,
        }
        if self.rehearsal:
            variables |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        return variables


@dataclass(frozen=True)
class Command:
    """A process.

    Attributes:
        arguments: of the process.
        variables: of its environment, beside the day's.
        absent: why it cannot run here; empty: it can.
        may_be_cut: it is no failure if its time is over before it has ended.
    """

    arguments: Sequence[str]
    variables: Mapping[str, str] = field(default_factory=dict)
    absent: str = ""
    may_be_cut: bool = False

    @property
    def name(self) -> str:
        """What it is called where it fails."""
        return " ".join(Path(part).name for part in self.arguments[:4])


def python(*arguments: object, **variables: str) -> Command:
    """This Python with these arguments."""
    return Command([sys.executable, *map(str, arguments)], variables)


def script(name: str, *arguments: object, **variables: str) -> Command:
    """A script of ``benchmarks``."""
    return python(ROOT / "benchmarks" / name, *arguments, **variables)


@dataclass(frozen=True)
class Ending:
    """How a command has ended.

    Attributes:
        status: its exit status; None: it was ended because its time was over.
        seconds: that it took.
        tail: the end of its output.
    """

    status: int | None
    seconds: float
    tail: str


def run_command(command: Command, day: Day, limit: float, take: Callable[[Record], None]) -> Ending:
    """Run it for ``limit`` seconds at most; records in its output are taken, the rest is logged."""
    begin = time.monotonic()
    tail: deque[str] = deque(maxlen=TAIL)
    if shutil.which(command.arguments[0]) is None:
        return Ending(127, 0.0, f"{command.arguments[0]} is not there, or no program")
    process = subprocess.Popen(
        command.arguments,
        cwd=day.work,
        env=day.environment() | dict(command.variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="backslashreplace",
        start_new_session=True,
    )
    assert process.stdout is not None
    with (day.out / "log.txt").open("a", encoding="utf-8") as log:
        log.write(f"\n$ {' '.join(command.arguments)}\n")
        reader = threading.Thread(target=_read, args=(process.stdout, log, tail, take), daemon=True)
        reader.start()
        over = False
        try:
            process.wait(max(limit, 0.0))
        except subprocess.TimeoutExpired:
            over = True
            _signal(process, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        finally:
            _signal(process, signal.SIGKILL)
            _kill_what_is_left(day)
        process.wait()
        reader.join(GRACE)
        if not reader.is_alive():  # closing would wait for whoever still has the other end
            process.stdout.close()
    return Ending(
        None if over else process.returncode, time.monotonic() - begin, "".join(tail).rstrip()
    )


def _signal(process: subprocess.Popen[str], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _kill_what_is_left(day: Day) -> None:
    """Processes in sessions of their own, as torchrun's are: known by the day's environment."""
    mark = f"TRITON_CACHE_DIR={day.triton_cache}".encode()
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in environ.read_bytes().split(b"\0"):
                os.kill(int(environ.parent.name), signal.SIGKILL)


def _read(output: TextIO, log: TextIO, tail: deque[str], take: Callable[[Record], None]) -> None:
    for line in output:
        record = _record(line)
        if record is not None:
            take(record)
            continue
        tail.append(line)
        if log.tell() < LONGEST_LOG:
            log.write(line)
            log.flush()


def _record(line: str) -> Record | None:
    if line.startswith("{"):
        with suppress(ValueError):
            found = json.loads(line)
            return found if isinstance(found, dict) else None
    return None
