"""Ctrl-C and SIGTERM while training: the step under way is finished and saved."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class StopRequest:
    """Which signal has asked to stop, if one has."""

    def __init__(self) -> None:
        self.number: int | None = None

    def pass_on(self) -> None:
        """End as the signal would have ended the program; KeyboardInterrupt without one."""
        if self.number is not None:
            signal.raise_signal(self.number)
        raise KeyboardInterrupt


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Let Ctrl-C and SIGTERM be noted in the block; a second one stops at once."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before: dict[int, Any] = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: object) -> None:
        request.number = number
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
