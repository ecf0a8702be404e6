"""``gsd view`` as a process: what it prints, how it ends, what it says of mistakes."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from gsd.main import main

SECONDS = 60


@contextmanager
def viewing(*arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the command; give the process and the address that it prints."""
    command = [Path(sys.executable).with_name("gsd"), "view", "--no-browser", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def test_it_prints_one_address_and_ctrl_c_ends_it_whatever_clients_do(shown: list[Path]) -> None:
    with viewing(*shown) as (process, address):
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/([\w-]{20,})/", address)
        assert found is not None, address
        slow = [socket.create_connection(("127.0.0.1", int(found[1]))) for _ in range(60)]
        for i, connection in enumerate(slow):
            part = f"GET /{found[2]}/slides/0/tiles/0/0/0 HTTP/1.1\r\nHost: localhost\r\nX: "
            connection.sendall(part.encode()[: 3 * i])
        # One asks for more than fits on the way, and reads nothing.
        full = f"GET /{found[2]}/static/openseadragon.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
        slow.append(socket.create_connection(("127.0.0.1", int(found[1]))))
        slow[-1].sendall(full.encode() * 60)
        with httpx.Client(base_url=address) as client:
            assert client.get("slides/0/tiles/0/0/0").content[:2] == b"\xff\xd8"
            assert client.get("slides/0").json()["layers"][0]["name"] == "m.tif"
        process.send_signal(signal.SIGINT)
        begin = time.monotonic()
        assert process.wait(SECONDS) == 130
        assert time.monotonic() - begin < 5  # on a busy machine; else a tenth of a second
        for connection in slow:
            connection.close()
        assert process.stderr is not None
        assert process.stderr.read() == "Stopped.\n"
        assert process.stdout is not None
        assert process.stdout.read() == "what is drawn is kept in corrections\n"


def test_a_port_that_is_taken(shown: list[Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = CliRunner().invoke(main, ["view", *map(str, shown), "--port", str(port)])
    assert ended.exit_code == 1
    assert ended.stderr == (
        f"Error: port {port} of 127.0.0.1: Address already in use; choose another with --port, or"
        " leave it out\n"
    )


def test_a_host_that_is_none_of_this_machine(shown: list[Path]) -> None:
    ended = CliRunner().invoke(main, ["view", str(shown[0]), "--host", "host.invalid"])
    assert ended.exit_code == 1
    assert ended.stderr.startswith("Error: --host host.invalid: ")


def test_a_slide_that_cannot_be_shown_is_told_at_once(tmp_path: Path) -> None:
    damaged = tmp_path / "a.svs"
    damaged.write_bytes(b"II*\0" + os.urandom(100))
    ended = CliRunner().invoke(main, ["view", str(damaged)])
    assert ended.exit_code == 1
    assert ended.stderr.startswith(f"Error: {damaged}: ")


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_without_the_extra_it_says_what_to_install(shown: list[Path], missing: str) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; from gsd.main import main; main()"
    command = [sys.executable, "-c", program, "view", str(shown[0])]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert ended.returncode == 1
    assert ended.stderr == (
        f"Error: the page needs the package {missing}: pip install 'genselfdiff[view]'\n"
    )


def test_what_serves_the_page_loads_nothing_large() -> None:
    program = (
        "import sys, genselfdiff.viewer.serving\n"
        "print(*{'torch', 'scipy', 'skimage', 'matplotlib'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "\n"), ended.stderr
