"""Commands of gsd in processes of their own: how far they are, stopping them, what they say."""

import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, Any

from genselfdiff.errors import GsdError, one_line
from genselfdiff.progress import AS_JSON
from genselfdiff.text import shown
from genselfdiff.viewer.objects import THREADS

COMMAND = (sys.executable, "-m", "gsd.attached")
"""``gsd``, which ends when its standard input is closed."""

_NICENESS = 5
"""What somebody looks at goes first."""

_PATIENCE = 20.0
"""Seconds that a command has to end by itself."""

_LONGEST_LINE = 1 << 16
_LINES = 20
"""Of what a command says, that are kept."""


class Job:
    """Commands that run one after the other, until one fails.

    Args:
        steps: the arguments of ``gsd``, for each of them.
        finish: is called when the last one has ended well.

    Attributes:
        state: "waiting", "running", "done", "failed" or "stopped".
        error: what went wrong, else empty.
        progress: see ``GSD_PROGRESS``; None: nothing is known yet.
    """

    def __init__(
        self, steps: Sequence[Sequence[str]], finish: Callable[[], None] = lambda: None
    ) -> None:
        self.state = "waiting"
        self.error = ""
        self.progress: dict[str, Any] | None = None
        self._steps, self._finish = steps, finish
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._lock = threading.Lock()

    def run(self) -> None:
        """Run all of it."""
        try:
            self._run()
        except (GsdError, OSError) as error:
            self.state, self.error = "failed", one_line(error)

    def _run(self) -> None:
        for step in self._steps:
            with self._lock:
                if self._stopped:
                    self.state = "stopped"
                    return
                self.state, self.progress = "running", None
                self._process = subprocess.Popen(
                    [*COMMAND, *step],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env=os.environ | {AS_JSON: "json"},
                    start_new_session=True,  # Ctrl-C in the terminal is the server's
                )
            with suppress(OSError, AttributeError):
                os.setpriority(os.PRIO_PROCESS, self._process.pid, _NICENESS)
            assert self._process.stdout is not None
            said = self._read(self._process.stdout)
            status = self._process.wait()
            if status:
                self.error = "" if self._stopped else _why(said, status)
                self.state = "stopped" if self._stopped else "failed"
                return
        self._finish()
        self.state = "done"

    def stop(self) -> None:
        """End the command as by Ctrl-C; the same command goes on later, if it is one that can."""
        with self._lock:
            self._stopped = True
            if self._process is None:
                self.state = "stopped"
            elif self._process.stdin is not None:
                with suppress(OSError):
                    self._process.stdin.close()

    def close(self) -> None:
        """Stop it, and wait until it has ended."""
        self.stop()
        if self._process is not None:
            try:
                self._process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def told(self) -> dict[str, Any]:
        """Tell how far it is."""
        return {"state": self.state, "error": self.error, "progress": self.progress}

    def _read(self, stream: IO[bytes]) -> deque[str]:
        """Follow what the command says; return the last lines of text."""
        said: deque[str] = deque(maxlen=_LINES)
        while line := stream.readline(_LONGEST_LINE):
            try:
                self.progress = json.loads(line)["progress"]
            except (ValueError, LookupError, TypeError):
                said.append(shown(line.decode(errors="replace").strip()))
        return said


class Jobs:
    """Runs jobs one after the other, beside the server."""

    def __init__(self) -> None:
        self._waiting: deque[Job] = deque()
        self._current: Job | None = None
        self._change = threading.Condition()
        threading.Thread(target=self._work, name=f"{THREADS}-jobs", daemon=True).start()

    def add(self, job: Job) -> None:
        """Run a job when those before it have ended."""
        with self._change:
            self._waiting.append(job)
            self._change.notify()

    def close(self) -> None:
        """Stop all, and wait until the one that runs has ended."""
        with self._change:
            for job in self._waiting:
                job.stop()
            self._waiting.clear()
            current = self._current
        if current is not None:
            current.close()

    def _work(self) -> None:
        while True:
            with self._change:
                self._current = None
                self._change.wait_for(lambda: self._waiting)
                self._current = self._waiting.popleft()
            if self._current.state == "waiting":
                self._current.run()


def _why(said: deque[str], status: int) -> str:
    """The line in which a command says why it has failed."""
    errors = [line for line in said if line.startswith("Error: ")]
    lines = errors or [line for line in said if line] or [f"ended with status {status}"]
    return lines[-1].removeprefix("Error: ")
