"""``python -m gsd.attached``: as ``gsd``, but ended when standard input is closed.

Whoever starts it holds the other end of a pipe. However that process ends, the command ends, too:
as by Ctrl-C, so that it tidies up and can go on later, or at once where that takes too long.
"""

import os
import signal
import threading
import time

_PATIENCE = 15.0
"""Seconds that a command has to tidy up."""


def _end_with_input() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(_PATIENCE)
    os._exit(130)


def run() -> None:
    """Run the command that the arguments of this process name."""
    threading.Thread(target=_end_with_input, daemon=True).start()
    from gsd.main import main

    main(prog_name="gsd")


if __name__ == "__main__":
    run()
