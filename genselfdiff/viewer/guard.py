"""Who may ask the server, and what a browser may do with its answers."""

import ipaddress
import secrets
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    # Scripts, styles and pictures of this server only, none in the page's text.
    # The digest is of an empty style, see index.html.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' blob: data:;"
        " style-src 'self' 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_OWN_SITE = ("same-origin", "none")
"""What browsers say of requests of the page itself, and of an address that somebody types."""


class Guard:
    """Lets requests through whose path begins with the token, as ``/TOKEN/...``.

    Others cannot guess it, and neither can a page of another site: it would have to be sent by the
    browser under a name that leads to this machine (DNS rebinding), so that names but those of
    this machine are refused. So are requests that another site has the browser make, but for a
    link to the page that somebody follows: the terminal may be a page, too.

    Args:
        app: what answers; it sees the path without the token.
        token: the token.
        hosts: names of this machine, beside addresses in numbers and ``localhost``.
    """

    def __init__(self, app: ASGIApp, token: str, hosts: Iterable[str] = ()) -> None:
        self._app = app
        self._token = token.encode()
        self._hosts = {"localhost", *(host.lower() for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # a WebSocket is refused by not being accepted
        headers = Headers(scope=scope)
        token, _, path = scope["path"].removeprefix("/").partition("/")
        if not self._is_own(headers.get("host", "")):
            refusal = "gsd view answers under the name of its own machine only."
        elif not _is_of_own_page(scope["method"], headers):
            refusal = "gsd view answers its own page only."
        elif not secrets.compare_digest(token.encode(errors="replace"), self._token):
            refusal = "Open the address that gsd view has printed, with all that is in it."
        else:
            scope = {**scope, "path": f"/{path}", "raw_path": None}
            await self._app(scope, receive, _adding_headers(send))
            return
        await PlainTextResponse(refusal, 403)(scope, receive, _adding_headers(send))

    def _is_own(self, host: str) -> bool:
        """Whether a Host header names this machine in a way that nobody else can have set up."""
        name = host.rpartition("]")[0].removeprefix("[") or host.partition(":")[0]
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.lower() in self._hosts
        return True


def _is_of_own_page(method: str, headers: Headers) -> bool:
    """Whether it is no other page that the browser asks for."""
    if method not in ("GET", "HEAD"):  # whoever changes something says where they are from
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != headers.get("host"):
            return False
        return headers.get("sec-fetch-site", "same-origin") == "same-origin"
    return headers.get("sec-fetch-site", "none") in _OWN_SITE or _is_link(headers)


def _is_link(headers: Headers) -> bool:
    """Whether the browser leaves another page for what it asks for."""
    asked = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")
    return asked == ("navigate", "document")


def _adding_headers(send: Send) -> Send:
    async def adding(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(_HEADERS)
        await send(message)

    return adding
