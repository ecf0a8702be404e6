"""Slides on a server that fails when it is told to, and is asked again at once."""

import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from generated_slides import picture, write_slide
from range_server import RangeServer

from genselfdiff.slides import fingerprint as fingerprints
from genselfdiff.storage import filesystems

if find_spec("fsspec") is None or find_spec("aiohttp") is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no server longer than a moment."""
    monkeypatch.setattr(filesystems, "FIRST_WAIT", 0.001)


@pytest.fixture
def server() -> Iterator[RangeServer]:
    with RangeServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="session")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A pyramid of 1500 x 1300 pixels and two smaller levels in JPEG tiles, of 0.5 um."""
    path = tmp_path_factory.mktemp("slides") / "slide.tif"
    return write_slide(path, picture(1300, 1500)).read_bytes()


@pytest.fixture
def slide(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "slide.tif"
    path.write_bytes(content)
    return path


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have small slides read as large ones are: in parts, and told by samples."""
    monkeypatch.setattr(fingerprints, "WHOLE", 1000)
    monkeypatch.setattr(fingerprints, "_SAMPLE", 1000)
    fingerprints._known.clear()
