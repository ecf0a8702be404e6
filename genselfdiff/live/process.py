"""Where the process that predicts begins, and how it ends: with the server, however that ends."""

import logging
import os
import sys
import threading
from queue import SimpleQueue
from typing import IO, Any

from genselfdiff.live.messages import receive

_NICENESS = 5
"""The server, which answers at once, goes first."""


def main() -> None:
    """Predict as the first message says."""
    # Whatever prints to stdout must not get between the messages.
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    logging.getLogger("genselfdiff").setLevel(logging.ERROR)  # the page tells what matters
    messages: SimpleQueue[dict[str, Any]] = SimpleQueue()
    reading = threading.Thread(target=_read, args=(sys.stdin.buffer, messages), daemon=True)
    reading.start()
    from genselfdiff.live.worker import Worker  # loads torch, for seconds
    from genselfdiff.segmenting.options import Options

    begin = messages.get()
    worker = Worker(begin["slides"], Options(**begin["options"]), output)
    threading.Thread(target=worker.listen, args=(messages,), daemon=True).start()
    worker.work()


def _read(stream: IO[bytes], messages: "SimpleQueue[dict[str, Any]]") -> None:
    """Take what is told until nobody can tell anything any more, and end the process then."""
    while (message := receive(stream)) is not None:
        messages.put(message[0])
    os._exit(0)


if __name__ == "__main__":
    main()
