"""What servers do wrong is waited for, or told; never mixed into a slide, and never secret."""

import logging
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from range_server import RangeServer

from genselfdiff import open_slide
from genselfdiff.errors import InputError
from genselfdiff.slides import Slide, read_image
from genselfdiff.slides.fingerprint import fingerprint
from genselfdiff.storage import object_ranges
from genselfdiff.storage.places import Url
from genselfdiff.storage.remote_file import RemoteFile

Handler = Any
Part = tuple[int, int]


def pixels(slide: Slide) -> np.ndarray:
    return slide.read_level(0, 0, slide.width, slide.height)


def at_first(times: int, answer: Callable[[Handler, str, Part], None]) -> Callable[..., bool]:
    """Misbehave on the first requests for pixels."""
    left, lock = [times], threading.Lock()

    def misbehave(handler: Handler, path: str, part: Part) -> bool:
        with lock:
            left[0] -= 1
            is_due = left[0] >= 0
        if is_due:
            answer(handler, path, part)
        return is_due

    return misbehave


def busy(handler: Handler, path: str, part: Part) -> None:
    handler.send(503, b"slow down")


def waits(handler: Handler, path: str, part: Part) -> None:
    handler.send(429, b"", {"Retry-After": "0"})


def cut_off(handler: Handler, path: str, part: Part) -> None:
    content = handler.server.files[path][part[0] : part[1] + 1]
    headers = {"Content-Range": f"bytes {part[0]}-{part[1]}/{len(handler.server.files[path])}"}
    handler.send(206, content[: len(content) // 2], headers | {"ETag": '"1"'}, len(content))
    handler.close_connection = True


def hung_up(handler: Handler, path: str, part: Part) -> None:
    handler.close_connection = True


def other_part(handler: Handler, path: str, part: Part) -> None:
    content, first = handler.server.files[path], max(part[0] - 7, 0)
    last = min(part[1], len(content) - 1) - 7
    headers = {"Content-Range": f"bytes {first}-{last}/{len(content)}", "ETag": '"1"'}
    handler.send(206, content[first : last + 1], headers)


def no_part(handler: Handler, path: str, part: Part) -> None:
    handler.send(206, b"x" * (part[1] - part[0] + 1), {"ETag": '"1"'})


@pytest.mark.parametrize("fault", [busy, waits, cut_off, hung_up, other_part, no_part])
@pytest.mark.parametrize("when", ["opening", "reading"])
def test_what_is_soon_over_is_waited_for(
    fault: Callable[..., None], when: str, slide: Path, server: RangeServer
) -> None:
    address = server.add(slide)
    if when == "opening":
        server.misbehave = at_first(3, fault)
    with open_slide(address) as remote:
        server.misbehave = at_first(3, fault)
        assert np.array_equal(pixels(remote), read_image(slide))


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (busy, "its server answers HTTP 503, after 6 tries"),
        (cut_off, "after 6 tries"),
        (other_part, "the answer is not the part that was asked for, after 6 tries"),
    ],
)
def test_what_lasts_is_told(
    fault: Callable[..., None], told: str, slide: Path, server: RangeServer
) -> None:
    with open_slide(server.add(slide)) as remote:
        server.misbehave = at_first(10_000, fault)
        with pytest.raises(InputError, match=told):
            pixels(remote)


def test_what_cannot_be_fetched_does_not_become_glass(slide: Path, server: RangeServer) -> None:
    with open_slide(server.add(slide), on_error="blank") as remote:
        server.misbehave = at_first(10_000, busy)
        with pytest.raises(InputError, match="HTTP 503"):
            pixels(remote)
        assert remote.blank_tiles == 0


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (404, "no such file"),
        (403, "may not be read: give the credentials"),
        (401, "may not be read"),
        (200, "as a whole only, no parts of them: copy the file"),
        (418, "HTTP 418"),
    ],
)
def test_what_is_for_good_is_told_at_once(
    status: int, told: str, slide: Path, server: RangeServer
) -> None:
    address = server.add(slide)
    server.misbehave = at_first(1, lambda handler, *_: handler.send(status, b"all of it"))
    with pytest.raises(InputError, match=told):
        open_slide(address)
    assert len(server.requests) == 1


def test_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(InputError, match=r"cannot be read.*after 6 tries"):
        open_slide("http://127.0.0.1:9/a.tif")


def test_a_server_that_says_nothing_is_not_waited_for_long(
    slide: Path, server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_ranges, "_SECONDS", {"total": 1, "sock_read": 0.05})
    server.misbehave = at_first(10_000, lambda *_: time.sleep(0.2))
    with pytest.raises(InputError, match="after 6 tries"):
        open_slide(server.add(slide))


@pytest.mark.parametrize("status", [200, 206])
def test_a_body_without_end_is_not_read(status: int, slide: Path, server: RangeServer) -> None:
    sent = [0]

    def endless(handler: Handler, path: str, part: Part) -> None:
        handler.send_response(status)
        size = len(handler.server.files[path])
        handler.send_header("Content-Range", f"bytes {part[0]}-{part[1]}/{size}")
        handler.send_header("ETag", '"1"')
        handler.end_headers()
        handler.close_connection = True
        try:
            while sent[0] < 2**30:
                handler.wfile.write(bytes(2**16))
                sent[0] += 2**16
        except OSError:
            pass

    with open_slide(server.add(slide)) as remote:
        server.misbehave = at_first(10_000, endless)
        with pytest.raises(InputError):
            pixels(remote)
    assert sent[0] < 2**28


def test_redirects_are_followed_but_not_for_ever(slide: Path, server: RangeServer) -> None:
    server.add(slide)

    def redirect(handler: Handler, path: str, part: Part) -> bool:
        if path == "/link.tif":
            handler.send(302, b"", {"Location": "/slide.tif"})
        elif path == "/circle.tif":
            handler.send(302, b"", {"Location": "/circle.tif"})
        return path != "/slide.tif"

    server.misbehave = redirect
    assert np.array_equal(read_image(f"{server.address}/link.tif"), read_image(slide))
    with pytest.raises(InputError, match="cannot be read"):
        open_slide(f"{server.address}/circle.tif")


def test_a_file_that_changes_on_a_server_is_told(slide: Path, server: RangeServer) -> None:
    with open_slide(server.add(slide), on_error="blank") as remote:
        remote.read_level(0, 0, 100, 100)
        server.etags["/slide.tif"] = '"2"'
        with pytest.raises(InputError, match="was changed while it was read"):
            pixels(remote)


def test_a_file_that_shrinks_on_a_server_is_told(slide: Path, server: RangeServer) -> None:
    address = server.add(slide)
    server.etags.clear()  # it tells neither ETag nor time
    with open_slide(address) as remote:
        server.files["/slide.tif"] = slide.read_bytes()[:100_000]
        with pytest.raises(InputError, match="was changed while it was read"):
            pixels(remote)


def test_an_object_that_changes_in_a_bucket_is_told(
    slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_ranges, "_LOOK_AGAIN", 0)
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/changing/a.tif", slide.read_bytes())
    with open_slide("memory://changing/a.tif", on_error="blank") as remote:
        remote.read_level(0, 0, 100, 100)
        memory.pipe_file("/changing/a.tif", slide.read_bytes())
        with pytest.raises(InputError, match="was changed while it was read"):
            pixels(remote)


def test_a_fingerprint_of_what_has_no_stamp_is_not_remembered(
    slide: Path, server: RangeServer
) -> None:
    url = Url(server.add(slide))
    server.etags.clear()
    before = fingerprint(url)
    content = server.files["/slide.tif"]
    server.files["/slide.tif"] = content[:-1] + bytes([content[-1] ^ 1])
    assert fingerprint(url) != before


@pytest.mark.parametrize(
    "fault",
    [
        None,
        lambda handler, *_: handler.send(404, b""),
        lambda handler, *_: handler.send(403, b""),
        lambda handler, *_: handler.send(302, b"", {"Location": "/a.tif?sig=hunter2"}),
        hung_up,
        busy,
    ],
)
def test_secrets_are_told_nobody(
    fault: Callable[..., None] | None,
    slide: Path,
    server: RangeServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    host = server.add(slide).removeprefix("http://")
    if fault is None:
        server.server_close()
    else:
        server.misbehave = at_first(10_000, fault)
    address = f"http://user:hunter2@{host}?X-Amz-Signature=hunter2"
    with caplog.at_level(logging.DEBUG, "genselfdiff"), pytest.raises(InputError) as caught:
        open_slide(address)
    told = "".join(traceback.format_exception(caught.value))
    assert "slide.tif?..." in str(caught.value)
    assert "hunter2" not in told + repr(RemoteFile) + caplog.text
