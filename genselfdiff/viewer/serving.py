"""Starting the server, and ending it at once."""

import os
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Sequence
from types import FrameType

import uvicorn

from genselfdiff.errors import InputError, one_line
from genselfdiff.viewer.answering import Part
from genselfdiff.viewer.guard import Guard
from genselfdiff.viewer.library import Library
from genselfdiff.viewer.objects import THREADS
from genselfdiff.viewer.server import viewer_app

_WAITING = 128
"""Connections that wait to be accepted."""


def serve(
    library: Library,
    parts: Sequence[Part] = (),
    *,
    host: str,
    port: int,
    browser: bool,
    announce: Callable[[str], None],
) -> None:
    """Serve the page until Ctrl-C.

    Args:
        library: what is shown.
        parts: what is plugged in.
        host: name or address of this machine that the server listens at.
        port: 0: any that is free.
        browser: open the page, where there is a desktop.
        announce: is given the address of the page, once it can be opened.

    Raises:
        InputError: the port is taken, or ``host`` is none of this machine.
        KeyboardInterrupt: Ctrl-C.
    """
    listening = _listen(host, port)
    token = secrets.token_urlsafe(16)
    name = f"[{host}]" if ":" in host else host
    address = f"http://{name}:{listening.getsockname()[1]}/{token}/"
    app = Guard(viewer_app(library, parts), token, {host, socket.gethostname()})
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,
        server_header=False,
    )
    with listening:
        announce(address)
        if browser and _has_desktop():
            opening = threading.Thread(target=webbrowser.open, args=(address,), name=THREADS)
            opening.start()
        _Server(config).run(sockets=[listening])


class _Server(uvicorn.Server):
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End without waiting for tiles that are being read."""
        self.force_exit = True
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End without waiting for clients that do not read what they asked for."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(f"--host {host}: {one_line(error)}") from error
    try:
        if os.name == "posix":  # elsewhere it would let two servers have one port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
        listening.listen(_WAITING)
    except OSError as error:
        listening.close()
        raise InputError(
            f"port {port} of {host}: {one_line(error)}; choose another with --port, or leave it out"
        ) from error
    return listening


def _has_desktop() -> bool:
    """Whether a browser opens beside the terminal; one that runs in the terminal would cover it."""
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
