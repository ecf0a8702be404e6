"""What the server answers, and to whom."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from viewer_client import TOKEN, Client

from genselfdiff.viewer import answering, server
from genselfdiff.viewer.answering import Part
from genselfdiff.viewer.collection import Entry, collect
from genselfdiff.viewer.library import Library
from genselfdiff.viewer.server import viewer_app

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def ask(shown: list[Path]) -> Client:
    return Client(Library(collect(shown)))


def test_the_page_and_its_data(ask: Client) -> None:
    page = ask.get("")
    assert page.status_code == 200
    assert "<title>gsd view</title>" in page.text
    (told,) = ask.get("slides").json()
    assert (told["name"], told["state"], told["masks"]) == ("s.tif", "segmented", 2)
    details = ask.get("slides/0").json()
    assert (details["width"], details["height"], details["mpp"]) == (1300, 900, 0.5)
    assert [layer["kind"] for layer in details["layers"]] == ["mask", "probabilities"]
    assert ask.get("slides/0/objects/0").json()["error"] == ""
    colours = [[c["colour"] for c in layer["classes"]] for layer in details["layers"]]
    assert colours[0] == colours[1]
    for address, kind in (
        ("slides/0/thumbnail", "image/jpeg"),
        ("slides/0/tiles/2/1/0", "image/jpeg"),
        ("slides/0/layers/0/0/0/2/1", "image/png"),
        ("slides/0/layers/1/2/0/2/1", "image/png"),
    ):
        answer = ask.get(address)
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind), address


def test_everything_that_the_page_names_is_there(ask: Client) -> None:
    folder = Path(server.__file__).parent / "static"
    files = [path for path in folder.rglob("*") if path.is_file()]
    names = [path.relative_to(folder).as_posix() for path in files]
    assert {"index.html", "openseadragon.js", "openseadragon-LICENSE.txt"} <= set(names)
    for name in names:
        answer = ask.get(f"static/{name}")
        assert (answer.status_code, answer.content) == (200, (folder / name).read_bytes())


@pytest.mark.parametrize(
    "address",
    [
        *("slides/1", "slides/-1", "slides/0x0", "slides/1e0", "slides/" + "9" * 5000),
        *("slides/0/tiles/0/6/0", "slides/0/tiles/0/-1/0", "slides/0/tiles/99/0/0"),
        *("slides/0/tiles/0/999999999/0", "slides/0/tiles/0/0/9999999999999999999999"),
        *("slides/0/tiles/999999999/0/0", "slides/0/tiles/0/0", "slides/0/tiles/0/0/0/0"),
        *("slides/0/objects/1", "slides/0/objects/2", "slides/0/objects/0/at/-1/0"),
        *("slides/0/objects/0/99/0/0", "slides/0/objects/0/0/99999/0"),
        *("slides/0/layers/2/0/0/0/0", "slides/0/layers/0/1/0/0/0", "slides/0/tiles/%D9%A1/0/0"),
        *("static/../server.py", "static/..%2fserver.py", "static/%2e%2e/server.py"),
        *("static//etc/passwd", "static/%2fetc%2fpasswd", "static/index.html%00.js", "static/"),
        *("..%2f..%2fetc/passwd", "slides/0/../../../etc/passwd", "slides/..%2f0", "nothing"),
    ],
)
def test_what_is_not_there_is_not_found(ask: Client, address: str) -> None:
    # Written out, or the client would tidy it up.
    url = httpx.URL(f"http://127.0.0.1:8000/{TOKEN}/").copy_with(
        raw_path=f"/{TOKEN}/{address}".encode()
    )
    assert ask.get(url).status_code in (404, 403)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_sent(ask: Client, method: str) -> None:
    assert ask.request(method, "slides").status_code == 405


async def echo(request: Request) -> Response:
    return JSONResponse(await answering.sent(request, 20))


ECHO = Part("echo", [Route("/echo", echo, methods=["POST"])])


def test_parts_are_plugged_in(shown: list[Path]) -> None:
    asked = Client(Library(collect(shown)), ECHO)
    assert asked.get("parts").json() == ["echo"]
    assert asked.request("POST", "echo", json={"a": [1]}).json() == {"a": [1]}
    assert asked.get("echo").status_code == 405


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b'{"a": "0123456789"}', "application/json", 200),
        (b'{"a": "01234567890123"}', "application/json", 413),
        (b'{"a": 1}', "text/plain", 415),  # what a form of another page can send
        *((content, "application/json", 422) for content in (b"", b"[1]", b"{", b"\xff", b"NaN")),
    ],
)
def test_what_is_sent_is_bounded_json(
    shown: list[Path], content: bytes, kind: str, status: int
) -> None:
    asked = Client(Library(collect(shown)), ECHO)

    async def bit_by_bit() -> AsyncIterator[bytes]:
        yield content

    for body in (content, bit_by_bit()):
        answer = asked.request("POST", "echo", content=body, headers={"Content-Type": kind})
        assert answer.status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://127.0.0.1:8001"}, 403),
        ({"Origin": "https://evil.example.org"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
        (
            {
                "Sec-Fetch-Site": "cross-site",
                "Sec-Fetch-Mode": "navigate",
                "Sec-Fetch-Dest": "document",
            },
            403,
        ),
    ],
)
def test_nothing_is_taken_from_other_pages(
    shown: list[Path], headers: dict[str, str], status: int
) -> None:
    asked = Client(Library(collect(shown)), ECHO)
    assert asked.request("POST", "echo", json={}, headers=headers).status_code == status


@pytest.mark.parametrize(
    "path",
    ["", "slides", "x/slides", f"{TOKEN[:-1]}/slides", f"{TOKEN}x/slides", "%00/", "\u00e9/"],
)
def test_nothing_is_told_without_the_token(ask: Client, path: str) -> None:
    answer = ask.get(f"http://127.0.0.1:8000/{path}")
    assert answer.status_code == 403
    assert answer.text == "Open the address that gsd view has printed, with all that is in it."


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((name, 200) for name in ("127.0.0.1", "127.0.0.1:9", "localhost:1", "[::1]:80")),
        *((name, 200) for name in ("192.168.1.7:80", "slides.example.org", "LOCALHOST")),
        *((name, 403) for name in ("evil.example.org", "127.0.0.1.evil.org", "localhost.evil.org")),
        *((name, 403) for name in ("", "evil.org:80", "[evil]", "1.2.3.4.5")),
    ],
)
def test_names_that_others_can_lead_here_are_refused(ask: Client, host: str, status: int) -> None:
    assert ask.get("slides", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    ("site", "mode", "kind", "status"),
    [
        ("same-origin", "cors", "empty", 200),
        ("none", "navigate", "document", 200),
        ("cross-site", "navigate", "document", 200),  # a link that somebody follows
        ("cross-site", "navigate", "iframe", 403),
        ("cross-site", "cors", "empty", 403),
        ("cross-site", "no-cors", "script", 403),
        ("same-site", "no-cors", "image", 403),
    ],
)
def test_pages_of_other_sites_are_refused(
    ask: Client, site: str, mode: str, kind: str, status: int
) -> None:
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": kind}
    answer = ask.get("slides", headers=headers | {"Origin": "https://evil.example.org"})
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers


def test_browsers_are_told_to_run_and_load_nothing_else(ask: Client) -> None:
    for answer in (
        ask.get(""),
        ask.get("slides/0/tiles/0/0/0"),
        ask.get("http://127.0.0.1/elsewhere"),
    ):
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_hostile_names_come_as_text(slide: Make, mask: Make) -> None:
    name = "<img src=x onerror=alert(1)>\u202e.tif"
    classes = ["<script>alert(1)</script>", "a\x1b[31m\u202eb", "c"]
    asked = Client(Library(collect([slide(name), mask(of=name, names=classes)])))
    overview, details = asked.get("slides"), asked.get("slides/0")
    assert {a.headers["content-type"] for a in (overview, details)} == {"application/json"}
    assert overview.json()[0]["name"] == "<img src=x onerror=alert(1)>\\u202e.tif"
    shown = [c["name"] for c in details.json()["layers"][0]["classes"]]
    assert shown == ["<script>alert(1)</script>", "a\\x1b[31m\\u202eb", "c"]


def test_what_cannot_be_read_is_told(slide: Make, mask: Make, tmp_path: Path) -> None:
    other = mask(labels=np.zeros((9, 9), np.uint8))
    gone = Entry(tmp_path / "gone.svs")
    asked = Client(Library([*collect([slide(), other]), gone]))
    answer = asked.get("slides/0")
    assert answer.status_code == 422
    assert "is it the mask of another?" in answer.text
    for address in ("slides/1", "slides/1/tiles/0/0/0", "slides/1/thumbnail"):
        assert asked.get(address).text == f"{gone.slide}: no such file"


def test_a_file_that_is_gone_meanwhile_is_told(
    slide: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library(collect([slide()]))

    def gone(number: int, place: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(library, "slide_tile", gone)
    answer = Client(library).get("slides/0/tiles/0/0/0")
    assert (answer.status_code, answer.text) == (422, "Input/output error")


def test_requests_that_the_browser_gave_up_are_dropped_unread(
    shown: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    library, reading, go_on = Library(collect(shown)), [], threading.Event()

    def slide_tile(number: int, place: object) -> bytes:
        reading.append(place)
        go_on.wait(30)
        return b"tile"

    monkeypatch.setattr(library, "slide_tile", slide_tile)
    app = viewer_app(library)
    workers = answering.os.cpu_count() or 1

    async def asked(x: int, gone: asyncio.Event) -> int:
        status = []

        async def receive() -> dict[str, object]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, object]) -> None:
            status.append(message.get("status"))

        path = f"/slides/0/tiles/0/{x}/0"
        scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b""}
        await app(scope, receive, send)
        return status[0]

    async def play() -> list[int]:
        stays, gone = asyncio.Event(), asyncio.Event()
        first = [asyncio.create_task(asked(x, stays)) for x in range(workers)]
        later = [asyncio.create_task(asked(x, gone)) for x in range(100, 140)]
        while len(reading) < workers:
            await asyncio.sleep(0.01)
        gone.set()
        go_on.set()
        return [await task for task in (*first, *later)]

    assert asyncio.run(play()) == [200] * workers + [499] * 40
    assert len(reading) == workers
