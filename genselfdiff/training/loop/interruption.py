"""Ctrl-C and SIGTERM while training: the step under way is finished and saved."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class StopRequest:
    """Which signal has asked to stop, if one has, and what handled it before."""

    def __init__(self, before: dict[int, Any]) -> None:
        self.before = before
        self.number: int | None = None

    def pass_on(self) -> None:
        """End as the signal would have ended the program; KeyboardInterrupt without one."""
        if self.number is not None:
            signal.signal(self.number, self.before[self.number])
            signal.raise_signal(self.number)
        raise KeyboardInterrupt


@contextmanager
def stop_request(*, repeated: bool = False) -> Iterator[StopRequest]:
    """Let Ctrl-C and SIGTERM be noted in the block; a second one stops at once.

    With ``repeated`` it does not: torchrun and the scheduler both send one to every process, and
    what does not end is killed in the end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield StopRequest({})
        return
    before: dict[int, Any] = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM)
        # What is ignored stays so: scripts start jobs in the background without Ctrl-C.
        if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None)
    }

    request = StopRequest(before)

    def note(number: int, frame: object) -> None:
        request.number = number
        if not repeated:
            signal.signal(number, before[number])

    for number in before:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def outlive_the_first_signal() -> None:
    """Let a process that prepares tiles go on until the step under way is saved.

    A scheduler's SIGTERM goes to whole groups of processes, and without the worker the training
    process could not finish its step.
    """
    os.setpgid(0, 0)

    def ignore_once(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, ignore_once)
